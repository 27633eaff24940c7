//! Nothing that is pushed into an inbox is left there while the core sleeps.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pontoon::inbox::Inbox;
use rustix::event::{Timespec, epoll};

/// Watches the inbox as a core's driver does.
fn watch(inbox: &Inbox<u64>) -> rustix::fd::OwnedFd {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&set, inbox.as_fd(), epoll::EventData::new_u64(0), flags).unwrap();
    set
}

/// Sleeps until the inbox wakes it; false after `patience`.
fn sleep(set: &rustix::fd::OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    let mut events = Vec::with_capacity(1);
    epoll::wait(set, rustix::buffer::spare_capacity(&mut events), Some(&timeout)).unwrap();
    !events.is_empty()
}

#[test]
fn no_wake_is_lost_between_two_producers_and_a_core_that_sleeps_whenever_it_may() {
    const PARCELS: u64 = 100_000;
    let inbox = Arc::new(Inbox::new(64).unwrap());
    let set = watch(&inbox);
    let received = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..2u64)
        .map(|producer| {
            let (inbox, received) = (inbox.clone(), received.clone());
            std::thread::spawn(move || {
                let mut pause = producer + 1;
                for parcel in 0..PARCELS {
                    while inbox.push(parcel).is_err() {
                        std::thread::yield_now();
                    }
                    // Now and then wait until all is taken, so that the core falls asleep at ever other moments.
                    pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if pause >> 60 == 0 {
                        let before = received.load(Ordering::Relaxed);
                        for _ in 0..pause >> 50 & 0x3ff {
                            if received.load(Ordering::Relaxed) > before {
                                break;
                            }
                            std::hint::spin_loop();
                        }
                    }
                }
            })
        })
        .collect();
    let mut sleeps = 0;
    while received.load(Ordering::Relaxed) < 2 * PARCELS {
        if inbox.arm() {
            sleeps += 1;
            let taken = received.load(Ordering::Relaxed);
            assert!(sleep(&set, Duration::from_secs(10)), "a wake was lost after {taken} parcels and {sleeps} sleeps");
        }
        inbox.disarm();
        while inbox.pop().is_some() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
    for producer in producers {
        producer.join().unwrap();
    }
    assert!(sleeps > 100, "the core slept only {sleeps} times, which shows nothing");
}

#[test]
fn a_full_inbox_gives_the_parcel_back_and_still_hears_stop() {
    let inbox = Inbox::new(2).unwrap();
    let set = watch(&inbox);
    assert!(inbox.arm());
    assert_eq!(inbox.push(1), Ok(()));
    assert_eq!(inbox.push(2), Ok(()));
    assert_eq!(inbox.push(3), Err(3));
    assert!(sleep(&set, Duration::from_secs(10)), "the first push wakes");
    assert!(!inbox.arm(), "something is waiting");
    assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(1), Some(2), None));
    assert!(inbox.arm());
    inbox.stop();
    assert!(sleep(&set, Duration::from_secs(10)), "stop wakes");
    assert!(inbox.is_stopping());
    assert!(!inbox.arm(), "a core that is to stop does not sleep");
}
