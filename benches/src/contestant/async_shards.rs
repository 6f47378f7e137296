//! `Shards::run_async`.

use std::{cell::RefCell, future::ready, io, rc::Rc};

use nicring::BatchLease;

use super::{Asynchrony, Setup, Tuning, engine};

pub(super) fn serve(
    tuning: Tuning,
    asynchrony: Asynchrony,
    setup: Setup,
    ready_to_serve: &mut dyn FnMut(),
) -> io::Result<()> {
    let (shards, handler_of) = engine::open_shards(tuning, setup)?;
    ready_to_serve();
    match asynchrony {
        Asynchrony::AtOnce => shards.run_async(|_, _| {
            let mut handler = handler_of();
            move |batch: BatchLease| {
                let _ = handler.handle(&batch);
                ready(())
            }
        })?,
        Asynchrony::Later => shards.run_async(|_, _| {
            let handler = Rc::new(RefCell::new(handler_of()));
            move |batch: BatchLease| {
                let handler = Rc::clone(&handler);
                async move {
                    tokio::task::yield_now().await;
                    let _ = handler.borrow_mut().handle(&batch);
                }
            }
        })?,
    };
    Ok(())
}
