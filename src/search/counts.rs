//! What a responder saw: plain counters, one per outcome and one per reason of refusal.

use std::{fmt, ops::AddAssign};

/// Declares [`Reject`] and [`SearchCounts`] from one list, so that no reason can lack its counter.
macro_rules! counts {
    (
        outcomes { $($(#[$about:meta])* $outcome:ident,)* }
        rejects { $($(#[doc = $why:literal])* $reason:ident => $counter:ident,)* }
    ) => {
        /// Why a message was not answered; each reason has its counter in [`SearchCounts`].
        ///
        /// ```
        /// use nicring::search::{Reject, ca};
        ///
        /// let reject = ca::messages(b"too short").next().unwrap().unwrap_err();
        /// assert_eq!(reject, Reject::TruncatedHeader);
        /// assert_eq!(reject.name(), "truncated_header_count");
        /// assert_eq!(reject.to_string(), "The datagram ends within a message header");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reject { $($(#[doc = $why])* $reason,)* }

        impl Reject {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$reason,)*];

            /// The name of its counter.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => stringify!($counter),)* }
            }
        }

        impl fmt::Display for Reject {
            /// What its documentation says, in one line.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let about = match self { $(Self::$reason => concat!($($why),*),)* };
                f.write_str(about.trim().trim_end_matches('.'))
            }
        }

        impl std::error::Error for Reject {}

        /// What a responder has seen since it was made. Counters only grow (and wrap at 2^64).
        ///
        /// ```
        /// use nicring::search::SearchCounts;
        ///
        /// let mut one = SearchCounts::default();
        /// one.hit_count = 2;
        /// let mut total = SearchCounts::default();
        /// total += one;
        /// assert!(total.iter().any(|(name, value)| name == "hit_count" && value == 2));
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct SearchCounts {
            $($(#[$about])* pub $outcome: u64,)*
            $($(#[doc = $why])* pub $counter: u64,)*
        }

        impl SearchCounts {
            /// Every counter with its name, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [
                    $((stringify!($outcome), self.$outcome),)*
                    $((stringify!($counter), self.$counter),)*
                ]
                .into_iter()
            }

            /// The counter of one reason.
            #[must_use]
            pub const fn rejected(&self, reject: Reject) -> u64 {
                match reject { $(Reject::$reason => self.$counter,)* }
            }

            pub(super) fn reject(&mut self, reject: Reject) {
                match reject { $(Reject::$reason => self.$counter += 1,)* }
            }
        }

        impl AddAssign for SearchCounts {
            fn add_assign(&mut self, other: Self) {
                $(self.$outcome = self.$outcome.wrapping_add(other.$outcome);)*
                $(self.$counter = self.$counter.wrapping_add(other.$counter);)*
            }
        }
    };
}

counts! {
    outcomes {
        /// Datagrams handed to the responder.
        datagram_count,
        /// Datagrams of ignored sources ([`Answerer::ignore`](super::Answerer::ignore)). They are
        /// not read, and are not among the others.
        ignored_count,
        /// Names asked for in well-formed SEARCH messages.
        name_count,
        /// Names that were in the table and answered.
        hit_count,
        /// Names that were not in the table; not answered.
        miss_count,
        /// SEARCH messages that ask for a sign of life and for no name; not answered.
        ping_count,
        /// SEARCH messages that ask for neither a name nor a sign of life.
        empty_count,
        /// Messages of other kinds, such as beacons; skipped.
        other_count,
        /// Reply datagrams handed to `send`.
        reply_count,
    }
    rejects {
        /// The datagram ends within a message header.
        TruncatedHeader => truncated_header_count,
        /// The datagram ends within the payload its header announces.
        TruncatedPayload => truncated_payload_count,
        /// CA: a payload whose length is no multiple of eight.
        Misaligned => misaligned_count,
        /// CA: a command that has no place in a SEARCH datagram; the rest of it is not read.
        UnexpectedCommand => unexpected_command_count,
        /// CA: a client older than minor version 4, or older than 8 (it cannot be pointed at
        /// another host).
        OldClient => old_client_count,
        /// CA: no NUL byte after the name.
        UnterminatedName => unterminated_name_count,
        /// CA: a name of no bytes.
        EmptyName => empty_name_count,
        /// PVA: a header that does not begin with 0xCA and a version.
        BadMagic => bad_magic_count,
        /// PVA: a control message; they belong to TCP.
        ControlMessage => control_message_count,
        /// PVA: a segmented message; they belong to TCP.
        Segmented => segmented_count,
        /// PVA: a payload that ends before the fields it must have.
        MalformedPayload => malformed_payload_count,
        /// PVA: a SEARCH that does not accept TCP.
        NoTcp => no_tcp_count,
        /// PVA: ORIGIN_TAG outside the loopback group, or a second one.
        UntrustedOriginTag => untrusted_origin_tag_count,
        /// PVA: a server of this host passed on what was sent to an address not listened at.
        ForeignOrigin => foreign_origin_count,
        /// The reply would go to port 0.
        ReplyPortZero => reply_port_zero_count,
        /// PVA: the reply would go to a host that did not ask and that no configured subnet holds.
        RefusedReplyAddress => refused_reply_address_count,
    }
}
