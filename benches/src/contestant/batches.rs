//! `AsyncEngine::recv_batch`.

use std::{io, sync::Arc, time::Duration};

use nicring::{AsyncEngine, Backend, Egress};

use super::{Runtime, Setup, Tuning, engine};
use crate::service::Service;

pub(super) fn serve(
    runtime: Runtime,
    delay_max: Duration,
    setup: &Setup,
    ready: &mut dyn FnMut(),
) -> io::Result<()> {
    let service = setup.service.fork();
    let open = || Tuning::new(Backend::IoUring, delay_max).builder().port(setup.port).open_async();
    let ways_of = |engine: &AsyncEngine| engine::ways(&engine.handle().nics(), &setup.addresses);
    match runtime {
        Runtime::CurrentThread => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let engine = open()?;
                let ways = ways_of(&engine);
                ready();
                answer_all(&engine, service, &ways).await
            })
        }
        Runtime::MultiThread => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_io().build()?;
            runtime.block_on(async {
                let engine = Arc::new(open()?);
                let ways: Arc<[Egress]> = ways_of(&engine).into();
                ready();
                let tasks = [service.fork(), service].map(|service| {
                    let (engine, ways) = (Arc::clone(&engine), Arc::clone(&ways));
                    tokio::spawn(async move { answer_all(&engine, service, &ways).await })
                });
                for task in tasks {
                    task.await??;
                }
                Ok(())
            })
        }
        Runtime::TokioUring => tokio_uring::start(async {
            let engine = open()?;
            let ways = ways_of(&engine);
            ready();
            answer_all(&engine, service, &ways).await
        }),
    }
}

async fn answer_all(engine: &AsyncEngine, mut service: Service, ways: &[Egress]) -> io::Result<()> {
    while let Some(batch) = engine.recv_batch().await? {
        engine::answer(&batch, &mut service, ways);
    }
    Ok(())
}
