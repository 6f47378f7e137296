//! What a responder saw, for [`serde`].

use serde::{Serialize, ser::Serializer};

use super::SearchCounts;

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
