//! Settings of nicring that a contestant's name can change: `nicring+spin=200+buffer_count=256`.

use std::{fmt, time::Duration};

use nicring::{Backend, Builder, Engine, Filter, search::Protocol};

/// The settings of an engine: the backend, and what differs from nicring's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// The backend.
    pub backend: Backend,
    /// [`Builder::delay_max`].
    pub delay_max: Duration,
    /// How long it polls for datagrams before it sleeps.
    pub spin: Duration,
    /// [`Builder::buffer_count`].
    pub buffer_count: Option<usize>,
    /// [`Builder::buffer_bytes`].
    pub buffer_bytes: Option<usize>,
    /// [`Builder::batch_max`].
    pub batch_max: Option<usize>,
    /// [`Builder::recv_buffer_bytes`], which bounds the delay.
    pub recv_buffer_bytes: Option<usize>,
    /// [`Builder::kernel_time`].
    pub has_kernel_time: bool,
    /// [`Builder::shards`], by [`Builder::open_shards`] even if it is 1. With `None` there is one
    /// engine, opened by [`Builder::open`].
    pub shard_count: Option<usize>,
    /// [`Builder::pin_shards`].
    pub pins_shards: bool,
    /// How the handlers of shards are async, if they are (`Shards::run_async`).
    pub asynchrony: Option<Asynchrony>,
    /// [`Builder::filter`]: only SEARCH of PVA.
    pub filters_pva: bool,
}

/// When an async handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asynchrony {
    /// At once.
    AtOnce,
    /// After it has waited once, so that each batch takes a task.
    Later,
}

/// The settings, as an error message lists them.
pub(super) const SETTINGS: &str = "+delay=MICROSECONDS, +spin=MICROSECONDS, +buffer_count=N, \
     +buffer_bytes=N, +batch_max=N, +recv_buffer_bytes=N, +kernel_time, +shards=N, \
     +pin_shards, +async, +async=later, +filter=pva";

impl Tuning {
    pub(super) const fn new(backend: Backend, delay_max: Duration) -> Self {
        Self {
            backend,
            delay_max,
            spin: Duration::ZERO,
            buffer_count: None,
            buffer_bytes: None,
            batch_max: None,
            recv_buffer_bytes: None,
            has_kernel_time: false,
            shard_count: None,
            pins_shards: false,
            asynchrony: None,
            filters_pva: false,
        }
    }

    /// Changes one setting, `key=value`.
    pub(super) fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = || value.parse().map_err(|_| format!("{setting:?}: expected a number"));
        let time = || number().map(|us| Duration::from_micros(us as u64));
        match (key, value) {
            ("delay", _) => self.delay_max = time()?,
            ("spin", _) => self.spin = time()?,
            ("buffer_count", _) => self.buffer_count = Some(number()?),
            ("buffer_bytes", _) => self.buffer_bytes = Some(number()?),
            ("batch_max", _) => self.batch_max = Some(number()?),
            ("recv_buffer_bytes", _) => self.recv_buffer_bytes = Some(number()?),
            ("kernel_time", "") => self.has_kernel_time = true,
            ("shards", _) => self.shard_count = Some(number()?),
            ("pin_shards", "") => self.pins_shards = true,
            ("async", "") => self.asynchrony = Some(Asynchrony::AtOnce),
            ("async", "later") => self.asynchrony = Some(Asynchrony::Later),
            ("filter", "pva") => self.filters_pva = true,
            _ => return Err(format!("{setting:?}: expected {SETTINGS}")),
        }
        Ok(())
    }

    pub(super) fn builder(self) -> Builder {
        let builder = Engine::builder().backend(self.backend).delay_max(self.delay_max);
        let mut builder = builder.spin(self.spin);
        if let Some(count) = self.buffer_count {
            builder = builder.buffer_count(count);
        }
        if let Some(bytes) = self.buffer_bytes {
            builder = builder.buffer_bytes(bytes);
        }
        if let Some(count) = self.batch_max {
            builder = builder.batch_max(count);
        }
        if let Some(bytes) = self.recv_buffer_bytes {
            builder = builder.recv_buffer_bytes(bytes);
        }
        if let Some(count) = self.shard_count {
            builder = builder.shards(count);
        }
        if self.pins_shards {
            builder = builder.pin_shards();
        }
        if self.filters_pva {
            builder = builder.filter(Filter::new().search(Protocol::Pva));
        }
        if self.has_kernel_time { builder.kernel_time() } else { builder }
    }

    /// Writes the settings that differ from `base`, in the form that [`Tuning::set`] takes.
    pub(super) fn differences(&self, base: &Self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.delay_max != base.delay_max {
            write!(f, "+delay={}", self.delay_max.as_micros())?;
        }
        if self.spin != base.spin {
            write!(f, "+spin={}", self.spin.as_micros())?;
        }
        let counts = [
            ("buffer_count", self.buffer_count),
            ("buffer_bytes", self.buffer_bytes),
            ("batch_max", self.batch_max),
            ("recv_buffer_bytes", self.recv_buffer_bytes),
            ("shards", self.shard_count),
        ];
        for (key, value) in counts {
            if let Some(value) = value {
                write!(f, "+{key}={value}")?;
            }
        }
        let marks = [
            ("kernel_time", self.has_kernel_time),
            ("pin_shards", self.pins_shards),
            ("async", self.asynchrony == Some(Asynchrony::AtOnce)),
            ("async=later", self.asynchrony == Some(Asynchrony::Later)),
            ("filter=pva", self.filters_pva),
        ];
        marks.iter().filter(|(_, is_set)| *is_set).try_for_each(|(key, _)| write!(f, "+{key}"))
    }
}
