//! Any sequence of events: nothing is lost, nothing comes twice, and the audit passes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Datagram {
        slot: u16,
        len: usize,
        then: Then,
    },
    Error {
        slot: u16,
        errno: i32,
    },
    Wake,
    Stray {
        buffer: u16,
        bits: u64,
    },
    Remove {
        slot: u16,
    },
    Add {
        slot: u16,
    },
    Turn,
    /// Keeps the batch; at most four are kept.
    Lend,
    /// Gives the oldest kept batch back.
    Return,
}

const SLOT_COUNT: u16 = 4;

fn event() -> impl Strategy<Value = Event> {
    let slot = 0..SLOT_COUNT;
    let then = prop_oneof![8 => Just(Then::GoesOn), 1 => Just(Then::Ends)];
    let errno = prop_oneof![
        Just(libc::ENOBUFS),
        Just(libc::ECONNREFUSED),
        Just(libc::ENOMEM),
        Just(libc::ECANCELED),
        Just(libc::EBADF)
    ];
    prop_oneof![
        12 => (slot.clone(), 0..40usize, then)
            .prop_map(|(slot, len, then)| Event::Datagram { slot, len, then }),
        2 => (slot.clone(), errno).prop_map(|(slot, errno)| Event::Error { slot, errno }),
        1 => Just(Event::Wake),
        1 => (any::<u16>(), any::<u64>()).prop_map(|(buffer, bits)| Event::Stray { buffer, bits }),
        1 => slot.clone().prop_map(|slot| Event::Remove { slot }),
        2 => slot.prop_map(|slot| Event::Add { slot }),
        6 => Just(Event::Turn),
        2 => Just(Event::Lend),
        3 => Just(Event::Return),
    ]
}

/// The rig, what each socket was sent and has not heard yet, and the batches that are kept.
struct Story {
    rig: Rig<Uring<Fake>>,
    sent: BTreeMap<u16, Vec<String>>,
    lent: Vec<Batch>,
    number: usize,
}

impl Story {
    fn happen(&mut self, event: Event) {
        let rig = &mut self.rig;
        match event {
            Event::Datagram { slot, len, then } if rig.ring().is_armed(slot) => {
                self.number += 1;
                // All payloads differ, except for the empty ones.
                let text = format!("{:>len$}", self.number);
                let text = if len == 0 { String::new() } else { text };
                let then = if len == 0 { Then::Ends } else { then };
                if rig.ring().deliver_and(slot, text.as_bytes(), then) {
                    self.sent.entry(slot).or_default().push(text);
                }
            }
            Event::Error { slot, errno } if rig.ring().is_armed(slot) => {
                rig.ring().end(slot, errno);
            }
            Event::Wake => rig.ring().wake(Then::GoesOn),
            // The buffer must not exist (there are 8): the kernel may own one that exists, and is
            // right to name that.
            Event::Stray { buffer, bits } => {
                let buffer = buffer.max(8);
                rig.ring().complete(bits >> 8, 99, Some(buffer), Then::Ends);
            }
            Event::Remove { slot } if rig.sockets[usize::from(slot)].is_some() => rig.remove(slot),
            Event::Add { slot }
                if rig.sockets[usize::from(slot)].is_none() && rig.driver.is_free(slot) =>
            {
                rig.add(slot);
            }
            Event::Turn => {
                let heard = rig.turn();
                self.hear(heard);
            }
            Event::Lend if self.lent.len() < 4 => {
                let batch = std::mem::replace(&mut rig.batch, rig.driver.new_batch());
                self.lent.push(batch);
            }
            Event::Return if !self.lent.is_empty() => {
                rig.driver.take_back(&mut self.lent.remove(0));
            }
            _ => {}
        }
    }

    fn hear(&mut self, heard: Heard) {
        for (slot, text) in heard {
            let sent = self.sent.get_mut(&slot).expect("nothing was sent to it");
            assert_eq!(sent.remove(0), text, "slot {slot}");
        }
    }

    /// Gives all buffers back, and checks that all that was delivered is heard.
    fn end(mut self) {
        for mut batch in self.lent.drain(..) {
            self.rig.driver.take_back(&mut batch);
        }
        for _ in 0..20 {
            let heard = self.rig.turn();
            self.hear(heard);
        }
        assert!(self.sent.values().all(Vec::is_empty), "lost: {:?}", self.sent);
        assert_eq!(self.rig.driver.buffers.free_count(), 8);
        self.rig.driver.close();
        assert_eq!(self.rig.ring().slots(), [0u32; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_nothing_is_lost_and_nothing_comes_twice(
        events in prop::collection::vec(event(), 0..150)
    ) {
        let rig = fake(SLOT_COUNT.into(), 8);
        let mut story = Story { rig, sent: BTreeMap::new(), lent: Vec::new(), number: 0 };
        events.into_iter().for_each(|event| story.happen(event));
        story.end();
    }
}
