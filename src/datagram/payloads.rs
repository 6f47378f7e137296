//! The memory that the payloads of a batch lie in.

use std::{fmt::Debug, sync::Arc};

use super::record::Record;

/// Buffers that a backend lends out with its records.
pub(crate) trait LentBuffers: Debug + Send + Sync {
    /// The payload of a record whose buffer was lent and is not yet given back.
    fn payload(&self, record: &Record) -> &[u8];
}

/// Where the payloads of a [`Batch`](crate::Batch) lie.
#[derive(Debug)]
pub(crate) enum Payloads {
    /// The batch has memory of its own, which the backend receives into.
    Own(Box<[u8]>),
    /// Buffers of a backend. They are given back with the batch. They outlive the backend.
    #[allow(dead_code, reason = "for io_uring, which only Linux has")]
    Lent(Arc<dyn LentBuffers>),
}

impl Payloads {
    pub fn payload<'a>(&'a self, record: &'a Record) -> &'a [u8] {
        match self {
            Self::Own(bytes) => &bytes[record.span.start as usize..][..record.span.len as usize],
            Self::Lent(lent) => lent.payload(record),
        }
    }

    /// The batch's own memory; empty where it has none.
    pub fn own_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(_) => &mut [],
        }
    }
}
