//! What programs log and export, for [`serde`]: counts, and what an engine tells of itself.
//!
//! Nothing is read back: these are reports, and only an engine makes them. Each field has its name
//! in Rust. An address, an error and a word for a class are text.

use serde::{
    Serialize,
    ser::{SerializeStruct, SerializeStructVariant, Serializer},
};

use crate::{
    datagram::Class,
    engine::{Backend, BackendReport},
    nics::{Nic, NicAddress, NicId, Nics, Subnet},
    path::{BackendSetup, FailedNic, Hears, SocketInfo},
    stats::{Counts, NicStats, Stats},
};

/// One key per count, by the names that [`Counts::iter`] gives.
///
/// ```
/// # let engine = nicring::Engine::builder().port(0).nic("127.0.0.1").open()?;
/// let stats = serde_json::to_value(engine.handle().stats())?;
/// assert_eq!(stats["nics"][0]["counts"]["received_unicast_count"], 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Structures with all their public fields. Each field must be named, so none can be forgotten.
macro_rules! as_objects {
    ($($type:ident { $($field:ident),* $(; without $($hidden:ident),*)? })*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Self { $($field,)* $($($hidden: _,)*)? } = self;
                let count = [$(stringify!($field)),*].len();
                let mut object = serializer.serialize_struct(stringify!($type), count)?;
                $(object.serialize_field(stringify!($field), $field)?;)*
                object.end()
            }
        }
    )*};
}

as_objects! {
    Stats {
        nics, outbox_full_count, no_host_count, stopped_count, lease_wait_count, lent_count,
        lent_peak_count, posted_count, posted_peak_count, turn_count, overflow_count
    }
    NicStats { name, index, counts }
    SocketInfo { nic, address, hears, is_device_bound }
    NicId { name, index; without predecessor_count }
    Nic {
        name, index, is_up, is_loopback, is_point_to_point, addresses, broadcasts, local_subnets;
        without predecessor_count
    }
    NicAddress { address, netmask, broadcast, peer, is_local }
}

/// As a sequence of its NICs.
impl Serialize for Nics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// With the text of the error, which names the cause and the remedy.
impl Serialize for FailedNic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { nic, address, error } = self;
        let mut object = serializer.serialize_struct("FailedNic", 3)?;
        object.serialize_field("nic", nic)?;
        object.serialize_field("address", address)?;
        object.serialize_field("error", &error.to_string())?;
        object.end()
    }
}

/// With the text of why io_uring cannot be used.
impl Serialize for BackendReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { backend, unavailable, setup } = self;
        let mut object = serializer.serialize_struct("BackendReport", 3)?;
        object.serialize_field("backend", backend)?;
        let unavailable = unavailable.as_ref().map(ToString::to_string);
        object.serialize_field("unavailable", &unavailable)?;
        object.serialize_field("setup", setup)?;
        object.end()
    }
}

/// As an object under the name of the backend: `{"io_uring": {"flags": …}}`.
impl Serialize for BackendSetup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const NAME: &str = "BackendSetup";
        match self {
            Self::IoUring { flags, buffer_count, buffer_bytes, waits_for_several } => {
                let mut object = serializer.serialize_struct_variant(NAME, 0, "io_uring", 4)?;
                object.serialize_field("flags", flags)?;
                object.serialize_field("buffer_count", buffer_count)?;
                object.serialize_field("buffer_bytes", buffer_bytes)?;
                object.serialize_field("waits_for_several", waits_for_several)?;
                object.end()
            }
            Self::Portable { calls, datagrams_per_call_max } => {
                let mut object = serializer.serialize_struct_variant(NAME, 1, "portable", 2)?;
                object.serialize_field("calls", calls)?;
                object.serialize_field("datagrams_per_call_max", datagrams_per_call_max)?;
                object.end()
            }
        }
    }
}

/// As [`Class::name`].
impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// As [`Class::name`], or as `every_class` or `nothing`.
impl Serialize for Hears {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Class(class) => class.name(),
            Self::EveryClass => "every_class",
            Self::Nothing => "nothing",
        })
    }
}

/// As its text: `io_uring` or `portable`.
impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As its text, such as `192.0.2.0/24`.
impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use serde_json::{json, to_value};

    use super::*;
    use crate::{
        error::{Error, Unavailable},
        platform::COUNTS_KERNEL_DROPS,
    };

    #[test]
    fn counts_have_the_names_that_iter_gives() {
        let mut counts = Counts::default();
        (counts.sent_count, counts.received_bytes) = (7, 40);
        let value = to_value(counts).expect("plain numbers");
        let named: serde_json::Map<_, _> =
            counts.iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        assert_eq!((&value["sent_count"], &value["received_bytes"]), (&json!(7), &json!(40)));
        assert_eq!(value.get("kernel_drop_count").is_some(), COUNTS_KERNEL_DROPS);
        assert_eq!(value, json!(named));
        let nics = vec![NicStats { name: "lo".to_owned(), index: 1, counts }];
        let stats = to_value(Stats { nics, lent_count: 3, ..Stats::default() }).expect("plain");
        assert_eq!(stats["nics"], json!([{"name": "lo", "index": 1, "counts": named}]));
        assert_eq!(stats["lent_count"], 3);
    }

    #[test]
    fn sockets_and_nics_are_objects_of_plain_text_and_numbers() {
        let address = "192.0.2.7:5064".parse().expect("an address");
        let nic = NicId { name: "eth0".to_owned(), index: 2, predecessor_count: 1 };
        let info = |nic, hears| SocketInfo { nic, address, hears, is_device_bound: true };
        let infos = [
            info(Some(nic.clone()), Hears::Class(Class::Subnet)),
            info(None, Hears::EveryClass),
            info(None, Hears::Nothing),
        ];
        let object = |nic, hears: &str| {
            json!({"nic": nic, "address": "192.0.2.7:5064", "hears": hears,
                "is_device_bound": true})
        };
        let expected = [
            object(json!({"name": "eth0", "index": 2}), "subnet"),
            object(json!(null), "every_class"),
            object(json!(null), "nothing"),
        ];
        assert_eq!(to_value(infos).expect("plain"), json!(expected));
        let failed = FailedNic::new(Some(nic), address, Error::Stopped);
        assert_eq!(to_value(&failed).expect("plain")["error"], "the engine has ended");
        let own = NicAddress::new([192, 0, 2, 7].into(), [255, 255, 255, 0].into());
        let nic = Nic {
            name: "eth0".to_owned(),
            index: 2,
            is_up: true,
            is_loopback: false,
            is_point_to_point: false,
            addresses: vec![own],
            broadcasts: vec![[192, 0, 2, 255].into()],
            local_subnets: vec!["127.0.0.0/8".parse().expect("a subnet")],
            predecessor_count: 0,
        };
        let expected = json!([{
            "name": "eth0", "index": 2, "is_up": true, "is_loopback": false,
            "is_point_to_point": false, "broadcasts": ["192.0.2.255"],
            "local_subnets": ["127.0.0.0/8"],
            "addresses": [{"address": "192.0.2.7", "netmask": "255.255.255.0",
                "broadcast": "192.0.2.255", "peer": null, "is_local": true}],
        }]);
        assert_eq!(to_value([nic].into_iter().collect::<Nics>()).expect("plain"), expected);
    }

    #[test]
    fn a_backend_tells_its_set_up_and_why_it_was_chosen() {
        let source = io::ErrorKind::PermissionDenied.into();
        let (operation, errno, remedy) = ("io_uring_setup", "EPERM", "allow it");
        let setup = BackendSetup::Portable { calls: "epoll", datagrams_per_call_max: 64 };
        let portable = BackendReport {
            backend: Backend::Portable,
            unavailable: Some(Arc::new(Unavailable { operation, source, errno, remedy })),
            setup,
        };
        let expected = json!({
            "backend": "portable", "unavailable": "io_uring_setup: EPERM: allow it",
            "setup": {"portable": {"calls": "epoll", "datagrams_per_call_max": 64}},
        });
        assert_eq!(to_value(portable).expect("plain"), expected);
        let (flags, waits_for_several) = (vec!["DEFER_TASKRUN"], true);
        let setup =
            BackendSetup::IoUring { flags, buffer_count: 4, buffer_bytes: 2048, waits_for_several };
        let expected = json!({"io_uring": {"flags": ["DEFER_TASKRUN"], "buffer_count": 4,
            "buffer_bytes": 2048, "waits_for_several": true}});
        assert_eq!(to_value(setup).expect("plain"), expected);
    }
}
