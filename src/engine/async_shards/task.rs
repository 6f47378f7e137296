//! What a handler leaves to be done, as a task.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::task::spawn_local;

use crate::engine::handle::Handle;

/// The tasks of a shard. A panic in one of them ends the shard; runtimes would end its task alone.
#[derive(Clone)]
pub(super) struct Tasks {
    shard: Handle,
    panic: Rc<RefCell<Option<Box<dyn Any + Send>>>>,
}

impl Tasks {
    pub fn of(shard: Handle) -> Self {
        Self { shard, panic: Rc::default() }
    }

    /// Does what can be done at once, and makes a task of the rest. Returns whether there is any.
    pub fn start(&self, future: impl Future<Output = ()> + 'static) -> bool {
        let mut future = Box::pin(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => false,
            Poll::Pending => {
                // The task asks again, with its own waker.
                drop(spawn_local(Task { future, tasks: self.clone() }));
                true
            }
        }
    }

    /// Goes on with the panic that ended the shard.
    pub fn resume_panic(&self) {
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    tasks: Tasks,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Nobody polls the future again after it has panicked.
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            self.tasks.panic.replace(Some(panic));
            self.tasks.shard.stop();
            Poll::Ready(())
        })
    }
}
