//! Who the node is to its clients: a certificate that they pin.

use std::fmt;

use bumpless_shared::digest::Digest;

/// A TLS certificate and its key. Made once in the life of a node.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, DER, self-signed.
    pub certificate: Vec<u8>,
    /// The private key, PKCS#8 DER.
    pub key: Vec<u8>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Identity, IdentityError> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).map_err(IdentityError)?;
        Ok(Identity { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() })
    }

    /// What clients pin.
    pub fn pin(&self) -> Digest {
        pin(&self.certificate)
    }
}

/// The name in every node's certificate. Clients know a node by its pin, never by a name.
pub(crate) const NAME: &str = "bumpless";

/// SHA-256 of a certificate's DER.
pub fn pin(certificate: &[u8]) -> Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut digest = Digest([0; 32]);
    digest.0.copy_from_slice(hash.as_ref());
    digest
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.pin().short())
    }
}

/// No identity could be made.
#[derive(Debug)]
pub struct IdentityError(rcgen::Error);

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot make a TLS key and certificate: {}", self.0)
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
