//! What the engine does not hear although a plain server does, each with the reason.

use nicring::Listen;

use crate::{
    host::{From, Host, Question},
    oracle::Mode,
};

/// A reason not to hear something, and when it holds.
type Exception = (&'static str, fn(&Host, Mode, &Question) -> bool);

const EXCEPTIONS: [Exception; 2] = [
    (
        "a NIC without an IPv4 address has none that an answer could come from: it is no NIC here",
        |host, _, question| match question.from {
            From::Neighbour(number) => !host.has_address(&format!("s{number}")),
            From::Itself(_) => false,
        },
    ),
    (
        "only a socket on 0.0.0.0 hears a whole subnet; where it cannot be bound to a device, it \
     would take the unicasts of NICs that were not chosen: Handle::failed_nics names it",
        |host, mode, question| {
            let is_part = host.questions().iter().any(|question| !question.is_chosen);
            let is_class = !mode.has_devices && mode.listen == Listen::Class;
            is_class && is_part && question.to.octets()[..3] == [203, 0, 113]
        },
    ),
];

/// Why the engine need not hear this; `None` if it has to.
pub fn reason(host: &Host, mode: Mode, question: &Question) -> Option<&'static str> {
    let found = EXCEPTIONS.iter().find(|(_, holds)| holds(host, mode, question));
    found.map(|&(reason, _)| reason)
}
