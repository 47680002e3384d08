//! Who a client proved to be, by its certificate.

use super::certificate;

/// Read once per connection, from a certificate that was verified, and shared by its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The first URI of the subject's alternative names: where SPIFFE has its id.
    pub uri: Option<String>,
    /// As they stand in the certificate, wildcards too.
    pub dns_names: Vec<String>,
    /// RFC 4514: `CN=agent-7,OU=edge,O=Example`.
    pub subject: String,
}

impl PeerIdentity {
    /// `der`: a certificate that was verified. `None`: it can't be read, and says nothing of
    /// anybody.
    pub(crate) fn of(der: &[u8]) -> Option<PeerIdentity> {
        let read = certificate::read(der)?;
        Some(PeerIdentity {
            uri: read.uris.into_iter().next(),
            dns_names: read.dns_names,
            subject: read.subject,
        })
    }
}
