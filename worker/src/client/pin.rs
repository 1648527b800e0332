//! Trust in exactly one certificate.

use std::sync::{Arc, Mutex, PoisonError};

use bumpless_shared::digest::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::net;

/// Accepts the certificate with this pin, whatever name and dates are in it, from whoever has its key.
#[derive(Debug)]
pub struct Pinned {
    pin: Digest,
    provider: Arc<CryptoProvider>,
    /// The last pin that was not the right one.
    stranger: Mutex<Option<Digest>>,
}

impl Pinned {
    /// For this pin.
    pub fn new(pin: Digest, provider: Arc<CryptoProvider>) -> Pinned {
        Pinned { pin, provider, stranger: Mutex::new(None) }
    }

    /// The pin that is expected.
    pub fn pin(&self) -> Digest {
        self.pin
    }

    /// The pin of a certificate that was refused since this was last called.
    pub fn take_stranger(&self) -> Option<Digest> {
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = net::pin(certificate);
        if found == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        *self.stranger.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
