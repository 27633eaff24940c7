//! The handshake.

use pontoon_types::{ClientId, ClusterId, CoreId, NodeId};
use pontoon_wire::frame::FrameError;
use pontoon_wire::hello::{Caller, HELLO_BYTES, Hello, HelloRefusal, Welcome};
use pontoon_wire::{VERSION, VERSION_MIN};
use proptest::prelude::*;

use crate::samples;

fn sealed(mut bytes: [u8; HELLO_BYTES]) -> [u8; HELLO_BYTES] {
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn hellos_come_back(
        cluster in any::<u128>(),
        peer in any::<Option<(u64, u16, u64, u16, u32)>>(),
        client in any::<u128>(),
        core in any::<u16>(),
        versions in any::<(u16, u16)>(),
    ) {
        let from = match peer {
            Some((node, core, to, cores, segment_bytes)) => {
                Caller::Peer { node: NodeId(node), core: CoreId(core), to: NodeId(to), cores, segment_bytes }
            }
            None => Caller::Client(ClientId(client)),
        };
        let (version_min, version_max) = versions;
        let hello = Hello { cluster: ClusterId(cluster), from, core: CoreId(core), version_min, version_max };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
}

#[test]
fn each_refusal_comes_back() {
    let refusals = [
        HelloRefusal::OtherCluster,
        HelloRefusal::OtherNode,
        HelloRefusal::NoSuchCore,
        HelloRefusal::Version,
        HelloRefusal::OtherCoreCount,
        HelloRefusal::Full,
        HelloRefusal::CoreStopped,
        HelloRefusal::GivenUp,
        HelloRefusal::LargerSegments { caller_bytes: 32 << 20, own_bytes: 1 << 20 },
    ];
    for refusal in refusals.into_iter().map(Some).chain([None]) {
        let welcome = Welcome { refusal, ..samples::welcome() };
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
    }
}

#[test]
fn values_without_a_meaning_are_refused() {
    let mut hello = samples::hello_peer().encode();
    hello[24] = 3;
    assert_eq!(Hello::decode(&sealed(hello)), Err(FrameError::Value { field: "caller" }));
    let mut welcome = samples::welcome().encode();
    welcome[32] = 10;
    assert_eq!(Welcome::decode(&sealed(welcome)), Err(FrameError::Value { field: "refusal" }));
}

#[test]
fn a_newer_caller_may_say_more() {
    let mut hello = samples::hello_peer().encode();
    hello[52] = 1;
    assert_eq!(Hello::decode(&sealed(hello)), Ok(samples::hello_peer()));
}

#[test]
fn the_common_version_is_the_newest_that_both_read() {
    let common =
        |version_min, version_max| Hello { version_min, version_max, ..samples::hello_client() }.common_version();
    assert_eq!(common(VERSION_MIN, VERSION), Some(VERSION));
    assert_eq!(common(VERSION, VERSION + 5), Some(VERSION));
    assert_eq!(common(VERSION + 1, VERSION + 5), None);
    assert_eq!(common(0, VERSION_MIN - 1), None);
    assert_eq!(common(VERSION, VERSION - 1), None);
}
