//! The sockets that send.

use std::net::Ipv4Addr;

use super::plan::{Listeners, Role, SocketLayout, SocketPlan};
use crate::{platform, sys::options};

/// An address that no group ever has (RFC 1112, section 4). A socket that is bound to it hears
/// nothing, takes nothing from other sockets, is bound to no device, and still sends from the port.
const NO_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// How many spare senders a port has where send buffers are small.
///
/// An answer to a host that does not say where it is (ARP) waits in the kernel for three seconds,
/// and takes about 800 bytes of the sender's buffer. An unprivileged sender has 425,984 bytes. When
/// they are full, nobody is answered by it.
///
/// With 32 spare ones, chosen by the asker, 20 such hosts fill only those of their own.
const SPARE_SENDER_COUNT: usize = 32;

/// How many spare senders each port needs with send buffers of this size.
pub(crate) fn spare_sender_count(send_buffer_bytes: usize) -> usize {
    if options::grants_send_buffer(send_buffer_bytes) { 0 } else { SPARE_SENDER_COUNT }
}

impl Listeners<'_> {
    /// The senders for one port; none where this system sends from the sockets that hear.
    pub(super) fn senders(&self) -> Vec<SocketPlan> {
        if !platform::HAS_SENDERS || self.layout == SocketLayout::ByAddress {
            return Vec::new();
        }
        let plan = |role| SocketPlan::new(role, NO_GROUP);
        let of_nics = self.up().map(|nic| SocketPlan::of(nic, Role::Reply, NO_GROUP));
        let spare = (0..self.spare_sender_count).map(|number| plan(Role::Spare(number as u8)));
        // One more for what came in by a NIC that is not known.
        // Linux has the choice of the loop-back by socket alone (`IP_MULTICAST_LOOP`, ip(7)).
        let plain = [true, false].map(|multicast_loop| plan(Role::Send { multicast_loop }));
        plain.into_iter().chain([plan(Role::Reply)]).chain(of_nics).chain(spare).collect()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::{
        nics::{Nics, samples::nic},
        path::sockets::{ListenSettings, SubnetSockets},
    };

    #[test]
    fn each_nic_has_a_sender_in_every_layout_that_sends_from_other_addresses() {
        let nics =
            Nics::from_iter([nic("a", 2, &[("10.1.0.1", 24)]), nic("b", 3, &[("10.2.0.1", 24)])]);
        for (layout, expected) in [
            (
                SocketLayout::ClassByDevice,
                "Send + 0, Send - 0, Reply 0, Reply 2, Reply 3, Spare(0) 0",
            ),
            (
                SocketLayout::ClassWithoutDevice,
                "Send + 0, Send - 0, Reply 0, Reply 2, Reply 3, Spare(0) 0",
            ),
            (SocketLayout::Wildcard, "Send + 0, Send - 0, Reply 0, Reply 2, Reply 3, Spare(0) 0"),
            (SocketLayout::ByAddress, ""),
        ] {
            let listeners = Listeners {
                settings: &ListenSettings::default(),
                layout,
                nics: &nics,
                selected: &nics,
                subnet_sockets: SubnetSockets::Paired,
                spare_sender_count: 1,
            };
            let one = |plan: &SocketPlan| {
                let role = match plan.role {
                    Role::Send { multicast_loop: true } => "Send +".to_owned(),
                    Role::Send { multicast_loop: false } => "Send -".to_owned(),
                    role => format!("{role:?}"),
                };
                format!("{role} {}", plan.nic_index())
            };
            let senders: Vec<_> = listeners.senders().iter().map(one).collect();
            assert_eq!(senders.join(", "), expected, "{layout:?}");
        }
    }
}
