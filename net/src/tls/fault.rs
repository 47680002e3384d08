//! Why TLS towards a server came to nothing, in words for an operator: what, why, what to do.
//!
//! Always: no key is shown, and of what the server says of itself only a little, made printable.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError};

/// Of the names in a server's certificate so many are told.
const NAMES_SHOWN_MAX: usize = 4;
const NAME_CHARS_MAX: usize = 64;

/// It lies within the [`io::Error`] of whoever reads, writes or dials.
#[derive(Debug)]
pub struct Fault {
    /// Whom it is about, where that is known.
    peer: Option<SocketAddr>,
    why: String,
}

impl Fault {
    pub(crate) fn of(error: &rustls::Error) -> Fault {
        Fault { peer: None, why: told(error) }
    }

    pub(crate) fn because(why: &str) -> Fault {
        Fault { peer: None, why: why.to_owned() }
    }

    pub(crate) fn with(self, peer: SocketAddr) -> Fault {
        Fault { peer: Some(peer), ..self }
    }

    /// `error` with the peer's address in it, a fault or not.
    pub(crate) fn or_error_with(peer: SocketAddr, error: io::Error) -> io::Error {
        match error.downcast::<Fault>() {
            Ok(fault) => fault.with(peer).into(),
            Err(error) => io::Error::new(error.kind(), format!("{peer}: {error}")),
        }
    }

    /// What to say of an error of a line that another adapter of rustls' made: of TLS the words of
    /// a fault, else the error's own.
    pub fn told(error: &io::Error) -> String {
        let within = error.get_ref().and_then(|within| within.downcast_ref::<rustls::Error>());
        within.map_or_else(|| error.to_string(), |error| Fault::of(error).to_string())
    }

    /// Whether TLS is what failed in `error`, or in what it stems from.
    pub fn is_in(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if within.is_some_and(|within| within.is::<Fault>()) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "TLS with {peer}: {}", self.why),
            None => write!(f, "TLS: {}", self.why),
        }
    }
}

impl Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => format!(
            "the server does not speak TLS on this port ({error}): check the port, or set \
             tls.insecure: true, or write http://, if cleartext is what you want"
        ),
        rustls::Error::NoApplicationProtocol | rustls::Error::PeerIncompatible(_) => {
            format!("the server has nothing in common with this client: {error}")
        }
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it there (or set this machine's clock)"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: compare the clocks of both machines"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            "no CA that is trusted here has issued the server's certificate (UnknownIssuer): set \
             tls.ca_file to the certificate of its CA, or have the server send its whole chain"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for \"{}\" but for {}: dial a name that it has, or \
             set tls.server_name_override to one",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::NotValidForName => {
            "the server's certificate is for another name: dial a name that it has, or set \
             tls.server_name_override to one"
                .to_owned()
        }
        error if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            "the server shows a CA's own certificate (CaUsedAsEndEntity): issue it one of its own, \
             or a self-signed one with basicConstraints CA:FALSE"
                .to_owned()
        }
        error => format!("the server's certificate can't be used: {error}"),
    }
}

/// What the server said of us.
fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server wants a certificate of this client, and none is shown: set tls.cert_file \
             and tls.key_file"
                .to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => format!(
            "the server refuses this client's certificate, or wants one ({alert:?}): check \
             tls.cert_file, and which CAs the server trusts"
        ),
        AlertDescription::NoApplicationProtocol => {
            "the server speaks TLS, but not this protocol above it (NoApplicationProtocol): check \
             the port"
                .to_owned()
        }
        alert => format!(
            "the server broke it off ({alert:?}): compare min_version and max_version, and whether \
             it wants a certificate"
        ),
    }
}

fn names(presented: &[String]) -> String {
    let printable = |name: &String| -> String {
        let shown = name.chars().take(NAME_CHARS_MAX);
        shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    let shown: Vec<String> = presented.iter().take(NAMES_SHOWN_MAX).map(printable).collect();
    match (shown.is_empty(), presented.len() - shown.len()) {
        (true, _) => "no name at all".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As hyper does it: an error around the one that it stems from.
    #[derive(Debug)]
    struct Around(io::Error);

    impl fmt::Display for Around {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the connection ended")
        }
    }

    impl Error for Around {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_fault_is_found_however_deep_it_lies_and_no_other_error_is_taken_for_one() {
        let fault = || io::Error::from(Fault::because("no"));
        assert!(Fault::is_in(&fault()));
        assert!(Fault::is_in(&Around(fault())));
        assert!(!Fault::is_in(&io::Error::from(io::ErrorKind::InvalidData)));
        assert!(!Fault::is_in(&Around(io::Error::other("TLS: no"))));
    }

    #[test]
    fn of_a_servers_names_only_a_few_are_told_and_none_can_forge_a_line() {
        let name = |index: usize| format!("a{index}\n{}", "x".repeat(500));
        let told = names(&(0..1_000).map(name).collect::<Vec<_>>());
        assert!(told.ends_with("and 996 more") && !told.contains('\n'), "{told}");
        assert!(told.len() < 400, "{told}");
        assert_eq!(names(&[]), "no name at all");
    }
}
