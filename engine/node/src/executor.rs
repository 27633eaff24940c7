//! One pinned glommio executor for each core, and the one future that runs on it: the core's loop.
//!
//! The executor pins the thread and is the root that everything of a core lives under. The loop waits in its own
//! readiness call only and does not yield: nothing else runs on a core, and glommio 0.9 can park an executor whose only
//! task is runnable (`docs/decisions/0001-core-loop.md` has the figures and the reason). Work that takes long, such as
//! preparing segments or recovery, has threads of its own.
//!
//! A broken law unwinds out of the turn or the clean end, not out of the executor: the node hears the law's name, and then
//! the loop and with it all sockets are dropped. In this order, because a log on a disk that does not answer may be
//! long in letting go.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use glommio::{LocalExecutorBuilder, Placement};
use pontoon_types::CoreId;

use crate::core_loop::{CoreLoop, Turn};
use crate::driver::Driver;
use crate::error::CoreFailure;
use crate::probe::IO_MEMORY_BYTES;

/// Builds a loop on this thread's new executor, tells how that went, and runs the loop to its end.
///
/// `cpu` is the processor to keep to. `build` runs on the executor; `started` is called once; `failed` is called when the
/// loop ends by itself.
pub fn run<D: Driver>(
    core: CoreId,
    cpu: Option<usize>,
    build: impl FnOnce() -> std::io::Result<CoreLoop<D>>,
    started: impl FnOnce(Result<(), String>),
    failed: impl FnOnce(CoreFailure),
) {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = catch_unwind(|| {
        LocalExecutorBuilder::new(placement).name(&format!("pontoon-{core}")).io_memory(IO_MEMORY_BYTES).make()
    });
    let executor = match executor {
        Ok(Ok(executor)) => executor,
        Ok(Err(error)) => {
            return started(Err(format!("the runtime refuses: {error}")));
        }
        Err(panic) => {
            return started(Err(format!("the runtime refuses: {}", message(panic.as_ref()))));
        }
    };
    executor.run(async move {
        match build() {
            Ok(core_loop) => {
                started(Ok(()));
                run_turns(core_loop, failed);
            }
            Err(error) => started(Err(format!("its driver cannot be set up: {error}"))),
        }
    });
}

fn run_turns<D: Driver>(mut core_loop: CoreLoop<D>, failed: impl FnOnce(CoreFailure)) {
    loop {
        match guarded(|| core_loop.turn()) {
            Ok(Turn::Next) => {}
            Ok(Turn::Stop) => break,
            Err(failure) => return failed(failure),
        }
    }
    if let Err(failure) = guarded(|| core_loop.close()) {
        failed(failure);
    }
}

/// A turn, or the end, or a whole thread, with a broken law as a failure that has the law's name.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, CoreFailure>) -> Result<T, CoreFailure> {
    // After a panic the loop is dropped and never looked at again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(panic) => Err(CoreFailure::Law(message(panic.as_ref()))),
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_law_becomes_a_failure_with_its_name() {
        let number = 7;
        let broken = guarded::<()>(|| panic!("law 13: write {number} was acknowledged twice"));
        assert!(matches!(&broken, Err(CoreFailure::Law(law)) if law == "law 13: write 7 was acknowledged twice"));
        let broken = guarded::<()>(|| panic!("law: one sync"));
        assert!(matches!(&broken, Err(CoreFailure::Law(law)) if law == "law: one sync"));
        assert!(matches!(guarded(|| Ok(5)), Ok(5)));
    }
}
