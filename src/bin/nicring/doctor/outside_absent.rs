//! What outside this program may keep datagrams from it is known on Linux only.

use nicring::Nics;

/// Nothing is known here.
pub fn lines(_ports: &[u16], _nics: &Nics) -> Vec<String> {
    vec!["  not known on this system".to_owned()]
}
