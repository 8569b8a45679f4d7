//! Certificates of the lab's own, made anew for each run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// Until some years ago.
    Past,
    /// In some hundred years.
    Future,
}

/// Somebody who issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one of this name, that nobody trusts yet.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
            .context("cannot make an authority")?;
        Ok(Self { issuer })
    }

    /// A certificate for this name, and its key.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn issue(&self, name: &str, validity: Validity) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params(name, validity)?
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot issue a certificate for {name}"))?;
        Ok(Identity { certificate, key })
    }

    /// Its own certificate.
    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Writes its certificate into `folder`, as `proxy_ssl_trusted_certificate` takes it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        write(folder, "authority.pem", &self.issuer.pem())
    }
}

fn params(name: &str, validity: Validity) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    let (from, to) = match validity {
        Validity::Now => (1990, 2190),
        Validity::Past => (1990, 2000),
        Validity::Future => (2180, 2190),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// A certificate and its key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// A certificate for this name that nobody but itself vouches for.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn self_signed(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params(name, Validity::Now)?
            .self_signed(&key)
            .with_context(|| format!("cannot make a certificate for {name}"))?;
        Ok(Self { certificate, key })
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// Writes both into `folder` for a server that is not the lab's own: certificate, key.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        Ok((
            write(folder, "certificate.pem", &self.certificate.pem())?,
            write(folder, "key.pem", &self.key.serialize_pem())?,
        ))
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
