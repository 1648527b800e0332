#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::UdpSocket;

use super::*;

fn loopback(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What each member of a group gets of `packets`; a last untagged packet marks the end on LISTEN,
/// and loopback delivers before `send_to` returns.
fn delivered(groups: &Groups, index: usize, packets: &[&[u8]]) -> [Vec<Vec<u8>>; PER_GROUP] {
    let address = groups.addresses()[index];
    let sender = UdpSocket::bind(SocketAddr::new(address.ip(), 0)).unwrap();
    for packet in packets {
        sender.send_to(packet, address).unwrap();
    }
    let mut got: [Vec<Vec<u8>>; PER_GROUP] = Default::default();
    for (member, fd) in got.iter_mut().zip(&groups.fds()[index * PER_GROUP..]) {
        let socket = UdpSocket::from(fd.try_clone_to_owned().unwrap());
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            member.push(buffer[..length].to_vec());
        }
    }
    got
}

#[test]
fn each_packet_reaches_the_slot_of_its_tag_and_everything_else_listen_over_ipv4_and_ipv6() {
    let groups = Groups::bind(&[loopback("127.0.0.1:0"), loopback("[::1]:0")]).unwrap();
    for index in 0..2 {
        let short = |tag| vec![0x40, tag, 0, 0];
        let long = |length, tag| vec![0xc0, 0, 0, 0, 1, length, tag, 0, 0];
        let packets = [
            short(1),
            short(2),
            short(3),
            long(12, 1),
            long(12, 3),
            short(0),
            short(4),
            long(20, 1),
            long(12, 9),
            vec![0x40],
        ];
        let borrowed: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let got = delivered(&groups, index, &borrowed);
        assert_eq!(got[1], [short(1), long(12, 1)]);
        assert_eq!(got[2], [short(2)]);
        assert_eq!(got[3], [short(3), long(12, 3)]);
        assert_eq!(got[0], [short(0), short(4), long(20, 1), long(12, 9), vec![0x40]]);
    }
}

#[test]
fn port_zero_is_resolved_once_and_the_resolved_address_can_be_bound_again_after_the_end() {
    let groups = Groups::bind(&[loopback("127.0.0.1:0")]).unwrap();
    let resolved = groups.addresses();
    assert_ne!(resolved[0].port(), 0);
    drop(groups);
    assert_eq!(Groups::bind(&resolved).unwrap().addresses(), resolved);
}

#[test]
fn an_address_in_use_is_refused_by_name_whoever_uses_it() {
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = plain.local_addr().unwrap();
    let error = Groups::bind(&[taken]).unwrap_err();
    assert!(matches!(error, SocketError::Taken { address } if address == taken), "{error}");
    assert!(error.to_string().contains(&taken.to_string()));

    let ours = Groups::bind(&[loopback("127.0.0.1:0")]).unwrap();
    let error = Groups::bind(&ours.addresses()).unwrap_err();
    assert!(matches!(error, SocketError::Taken { .. }), "our own group is not joined: {error}");
}

#[test]
fn addresses_that_cannot_work_are_refused_before_anything_is_bound() {
    assert!(matches!(Groups::bind(&[]), Err(SocketError::NoAddress)));
    let twice = Groups::bind(&[loopback("127.0.0.1:0"), loopback("127.0.0.1:0")]);
    assert!(matches!(twice, Err(SocketError::Repeated { .. })));
    let elsewhere = Groups::bind(&[loopback("192.0.2.1:4000")]);
    assert!(matches!(elsewhere, Err(SocketError::NotHere { .. })), "{elsewhere:?}");
}

#[test]
fn groups_that_were_handed_back_route_as_before_even_after_the_first_owner_is_gone() {
    let first = Groups::bind(&[loopback("127.0.0.1:0"), loopback("127.0.0.2:0")]).unwrap();
    let copies = first.fds().iter().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
    let addresses = first.addresses();
    drop(first);
    let again = Groups::from_fds(copies).unwrap();
    assert_eq!(again.addresses(), addresses);
    let got = delivered(&again, 1, &[&[0x40, 2, 0, 0]]);
    assert_eq!(got[2].len(), 1);
    assert!(again.receive_buffer().unwrap() > 100_000);
}

#[test]
fn sockets_that_make_no_group_are_refused() {
    let groups = Groups::bind(&[loopback("127.0.0.1:0")]).unwrap();
    let copy = |index: usize| groups.fds()[index].try_clone_to_owned().unwrap();
    assert!(matches!(Groups::from_fds(vec![]), Err(SocketError::NotGroups { count: 0 })));
    assert!(matches!(Groups::from_fds(vec![copy(0), copy(1)]), Err(SocketError::NotGroups { count: 2 })));
    let stranger: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    assert!(matches!(
        Groups::from_fds(vec![copy(0), copy(1), copy(2), stranger]),
        Err(SocketError::Mixed { .. })
    ));
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    assert!(matches!(
        Groups::from_fds(vec![file, copy(1), copy(2), copy(3)]),
        Err(SocketError::NotUdp { .. })
    ));
}

#[test]
fn nothing_of_a_group_stays_bound_if_a_later_address_fails() {
    let free = Groups::bind(&[loopback("127.0.0.1:0")]).unwrap().addresses()[0];
    let busy = UdpSocket::bind("127.0.0.2:0").unwrap();
    assert!(Groups::bind(&[free, busy.local_addr().unwrap()]).is_err());
    assert!(UdpSocket::bind(free).is_ok(), "the first address is free again");
}

#[test]
fn who_is_another_user_cannot_join_a_group_and_take_its_packets() {
    let test = "who_is_another_user_cannot_join_a_group";
    let Some(user) = crate::user::tests::other(test) else { return };
    let groups = Groups::bind(&[loopback("127.0.0.1:0")]).unwrap();
    let SocketAddr::V4(address) = groups.addresses()[0] else { panic!() };
    let join = || {
        let joins = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&joins, sockopt::ReusePort, &true).unwrap();
        bind(joins.as_raw_fd(), &SockaddrStorage::from(address))
    };
    assert_eq!(bumpless_os::child::with_files_as(user, join).unwrap(), Err(Errno::EADDRINUSE));
    // That is what it is about: of our own user it can.
    assert_eq!(join(), Ok(()));
}
