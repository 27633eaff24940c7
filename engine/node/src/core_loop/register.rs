//! The core's ledger on its way to the disk, and what an operator hears of its registration (law 12).

use std::time::Duration;

use pontoon_multiraft::{CoreStanding, Event};
use pontoon_types::Time;

use super::CoreLoop;
use crate::driver::Driver;

/// How long a core may wait for its peers before that is said, and again said.
const WAIT_TOLD: Duration = Duration::from_secs(10);

/// Since when the core waits, or when it was last said that it does.
#[derive(Debug, Default)]
pub(super) struct WaitWatch {
    since: Option<Time>,
}

impl<D: Driver> CoreLoop<D> {
    /// Whether a ledger has become durable that the core does not know of.
    pub(super) fn ledger_has_news(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.has_news())
    }

    /// Tells the core what is durable.
    pub(super) fn gather_ledger(&mut self, now: Time) {
        if let Some(number) = self.ledger.as_mut().and_then(|ledger| ledger.news()) {
            self.step(now, Event::LedgerKept(number));
        }
    }

    /// Hands the ledger to its keeper, and says what the core may do now.
    pub(super) fn keep_ledger(&mut self) {
        if let Some((number, ledger)) = self.effects.ledger.take()
            && let Some(keeper) = &self.ledger
        {
            keeper.keep(number, ledger);
        }
        match self.effects.standing.take() {
            Some(CoreStanding::Registered) => tracing::info!("the core is registered with its peers and takes part"),
            Some(CoreStanding::Refused) => tracing::error!(
                "a peer has heard of more than this data directory holds: it was restored from a backup, copied, or its disk \
                 has lost writes. The replicas of this core follow and never vote again. Replace the node: add another one, \
                 with a new directory, and remove this one"
            ),
            Some(CoreStanding::Waiting) => tracing::info!("the core asks its peers what they have heard of its log"),
            None => {}
        }
    }

    /// Says now and then that nobody has accepted the core.
    pub(super) fn watch_registration(&mut self, now: Time) {
        if self.core.standing() != CoreStanding::Waiting {
            self.waits.since = None;
            return;
        }
        let since = *self.waits.since.get_or_insert(now);
        if now.since(since) >= WAIT_TOLD {
            self.waits.since = Some(now);
            tracing::warn!(
                "no peer that was in touch with this node when it last ran has accepted its log: it does not vote. Start \
                 those nodes. If they are gone for good, and this directory is the one that the node had when it stopped, \
                 start it once with --trust-data-dir"
            );
        }
    }
}
