//! What a responder saw, for [`serde`].

use serde::{
    Serialize,
    ser::{SerializeStruct, Serializer},
};

use super::{NicSearchCounts, Protocol, SearchCounts};

/// One key per counter, by the names that [`SearchCounts::iter`] gives.
///
/// ```
/// let counts = serde_json::to_value(nicring::search::SearchCounts::default())?;
/// assert_eq!(counts["hit_count"], 0);
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Serialize for SearchCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// `ca` or `pva`.
impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One key per field.
///
/// ```
/// use nicring::search::{NicSearchCounts, Protocol};
///
/// let counts = serde_json::to_value(NicSearchCounts::new(Some(2), Protocol::Ca))?;
/// assert_eq!((&counts["nic"], &counts["protocol"]), (&2.into(), &"ca".into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Serialize for NicSearchCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { nic, protocol, datagram_count, name_count, hit_count } = self;
        let mut object = serializer.serialize_struct("NicSearchCounts", 5)?;
        object.serialize_field("nic", nic)?;
        object.serialize_field("protocol", protocol)?;
        object.serialize_field("datagram_count", datagram_count)?;
        object.serialize_field("name_count", name_count)?;
        object.serialize_field("hit_count", hit_count)?;
        object.end()
    }
}
