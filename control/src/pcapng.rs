//! Capture files: pcapng sections whose interfaces are our NICs, and whose packets have comments. What NFLOG rules, `fwctl capture`
//! and `fwctl drops` write. Any thread.

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// A packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Which NIC, by [`dataplane::ids::PortId`].
    pub port: u8,
    /// When, since 1970.
    pub at: Duration,
    /// Bytes of the whole frame.
    pub frame_len: u32,
    /// As much of it as was kept.
    pub bytes: &'a [u8],
    /// Whether it goes out of the NIC, not in; `None` if that is not said.
    pub is_outbound: Option<bool>,
    /// What is known of it.
    pub comment: &'a str,
}

/// A section being written.
pub struct Section<W: Write> {
    out: PcapNgWriter<W>,
    ports: u32,
}

impl<W: Write> Section<W> {
    /// Begins one, with these NICs by [`dataplane::ids::PortId`]; gives how many bytes its head has besides.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin<'a>(out: W, nics: impl IntoIterator<Item = &'a str>) -> io::Result<(Self, u64)> {
        let out = PcapNgWriter::new(out).map_err(as_io)?;
        let mut section = Self { out, ports: 0 };
        let mut bytes = 0;
        for nic in nics {
            let block = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(nic)),
                    // Nanoseconds.
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            };
            bytes += section.out.write_pcapng_block(block).map_err(as_io)? as u64;
            section.ports += 1;
        }
        Ok((section, bytes))
    }

    /// Writes a packet; gives how many bytes that took.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<u64> {
        let mut options = Vec::with_capacity(2);
        if let Some(is_outbound) = packet.is_outbound {
            options.push(EnhancedPacketOption::Flags(1 + u32::from(is_outbound)));
        }
        options.push(EnhancedPacketOption::Comment(Cow::Borrowed(packet.comment)));
        let block = EnhancedPacketBlock {
            interface_id: u32::from(packet.port),
            timestamp: packet.at,
            original_len: packet.frame_len,
            data: Cow::Borrowed(packet.bytes),
            options,
        };
        Ok(self.out.write_pcapng_block(block).map_err(as_io)? as u64)
    }

    /// Says how many packets were seen and how many of them were lost, so far and on all NICs together: said of the first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn statistics(&mut self, at: Duration, seen: u64, lost: u64) -> io::Result<u64> {
        if self.ports == 0 {
            return Ok(0);
        }
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            // The crate writes it as one number; the format has its upper half first.
            timestamp: nanos.rotate_left(32),
            options: vec![
                InterfaceStatisticsOption::IsbFilterAccept(seen),
                InterfaceStatisticsOption::IsbOsDrop(lost),
            ],
        };
        Ok(self.out.write_pcapng_block(block).map_err(as_io)? as u64)
    }

    /// Where it is written to.
    pub fn out(&mut self) -> &mut W {
        self.out.get_mut()
    }
}

fn as_io(error: pcap_file::PcapError) -> io::Error {
    match error {
        pcap_file::PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
