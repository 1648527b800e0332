//! A packet that reached the wrong worker, on its way to the right one.
//!
//! ```text
//!   byte 0        1            2     3                  4 ‥ 5   6 ‥ 9      10 ‥ 25  26 ‥ 41   42 ‥
//!        version  source 4|6   ECN   destination 0|4|6  port    scope id   source   destination  packet
//! ```
//!
//! One datagram carries one packet. Integers are big-endian; an IPv4 address takes the first 4 of its
//! 16 bytes. Two versions of the worker read each other's, so this layout is frozen; a datagram of
//! another version is dropped, and QUIC repairs the loss.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use quinn::udp::{EcnCodepoint, RecvMeta};

/// Bytes before the packet.
pub const HEADER: usize = 42;

const VERSION: u8 = 1;

/// The datagram for one packet.
pub fn encode(meta: &RecvMeta, packet: &[u8]) -> Vec<u8> {
    let (source_family, source) = address(meta.addr.ip());
    let (destination_family, destination) = meta.dst_ip.map_or((0, [0; 16]), address);
    let scope = match meta.addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    let mut bytes = Vec::with_capacity(HEADER + packet.len());
    bytes.extend([VERSION, source_family, meta.ecn.map_or(0, |ecn| ecn as u8), destination_family]);
    bytes.extend(meta.addr.port().to_be_bytes());
    bytes.extend(scope.to_be_bytes());
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(packet);
    bytes
}

/// The packet and what was known about it; `None` for anything else than a datagram of this version.
pub fn decode(datagram: &[u8]) -> Option<(RecvMeta, &[u8])> {
    let (header, packet) = datagram.split_first_chunk::<HEADER>()?;
    let [VERSION, source_family, ecn, destination_family, port @ ..] = header else { return None };
    let (port, rest) = port.split_first_chunk()?;
    let (scope, rest) = rest.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk()?;
    let (destination, _) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    let addr = match ip(*source_family, source)? {
        IpAddr::V4(v4) => SocketAddr::from((v4, port)),
        IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, port, 0, u32::from_be_bytes(*scope))),
    };
    let dst_ip = match destination_family {
        0 => None,
        family => Some(ip(*family, destination)?),
    };
    if packet.is_empty() {
        return None;
    }
    let ecn = EcnCodepoint::from_bits(*ecn);
    Some((RecvMeta { addr, len: packet.len(), stride: packet.len(), ecn, dst_ip }, packet))
}

fn address(ip: IpAddr) -> (u8, [u8; 16]) {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        IpAddr::V6(v6) => (6, v6.octets()),
    }
}

fn ip(family: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    match family {
        4 => Some(IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn metas() -> [RecvMeta; 2] {
        let four = RecvMeta {
            addr: "10.1.2.3:4660".parse().unwrap(),
            ecn: Some(EcnCodepoint::Ect0),
            dst_ip: Some("127.0.0.1".parse().unwrap()),
            ..RecvMeta::default()
        };
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 7);
        let six = RecvMeta { addr: SocketAddr::V6(link_local), ..RecvMeta::default() };
        [four, six]
    }

    #[test]
    fn a_stray_packet_arrives_with_all_that_was_known_about_it() {
        for meta in metas() {
            let datagram = encode(&meta, b"packet");
            let (back, packet) = decode(&datagram).unwrap();
            assert_eq!((back.addr, back.ecn, back.dst_ip), (meta.addr, meta.ecn, meta.dst_ip));
            assert_eq!((back.len, back.stride, packet), (6, 6, b"packet".as_slice()));
        }
    }

    #[test]
    fn the_layout_is_the_one_that_was_published_first() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [four, six] = metas();
        let zeros = |bytes| "00".repeat(bytes);
        assert_eq!(
            hex(&encode(&four, &[0x40])),
            format!("010402041234{}0a010203{}7f000001{}40", zeros(4), zeros(12), zeros(12))
        );
        assert_eq!(
            hex(&encode(&six, &[0x40])),
            format!("01060000000100000007fe80{}01{}40", zeros(13), zeros(16))
        );
    }

    #[test]
    fn what_is_no_stray_packet_of_this_version_is_dropped() {
        let [meta, _] = metas();
        let good = encode(&meta, b"p");
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_none());
        }
        for (byte, wrong) in [(0, 2), (1, 5), (3, 9)] {
            let mut bad = good.clone();
            bad[byte] = wrong;
            assert!(decode(&bad).is_none());
        }
    }
}
