//! Which datagrams may be a SEARCH, for the filter of an engine.

use super::{Protocol, ca, pva};
use crate::filter::{Filter, Pattern};

/// Patterns of SEARCHes.
impl Filter {
    /// Keeps what may be a SEARCH of this protocol, besides what else is kept (feature `search`).
    ///
    /// That is: the first message is a SEARCH, or what comes before one: the version of CA, the
    /// origin tag of PVA. Clients send nothing else before it. Beacons, answers and other protocols
    /// are dropped.
    ///
    /// ```
    /// use nicring::{Engine, Filter, search::Protocol};
    ///
    /// let filter = Filter::new().search(Protocol::Ca).search(Protocol::Pva);
    /// let builder = Engine::builder().ports([5064, 5076]).filter(filter);
    /// # let _ = builder;
    /// ```
    pub fn search(self, protocol: Protocol) -> Self {
        let patterns = match protocol {
            // The command, in two bytes: version, search.
            Protocol::Ca => [ca::VERSION, ca::SEARCH].map(|command| {
                let [high, low] = command.to_be_bytes();
                Pattern::new().byte(0, high).byte(1, low)
            }),
            // The magic byte; flags, of which the lowest is for messages of control; the command.
            Protocol::Pva => [pva::SEARCH, pva::ORIGIN_TAG]
                .map(|command| Pattern::new().byte(0, 0xca).bits(2, 0x01, 0).byte(3, command)),
        };
        patterns.into_iter().fold(self, Self::payload)
    }
}
