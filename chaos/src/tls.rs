//! A private authority and its certificates, made as a Tercet user makes them: with `tercet certs`.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{binary::Binary, tools::Tool};

/// An authority, in a folder with everything that it has signed.
#[derive(Clone, Debug)]
pub struct Authority {
    tercet: Tool,
    folder: PathBuf,
    /// What its certificates are for: how clients reach the replicas.
    hosts: Vec<String>,
}

/// The files of one certificate.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// An authority for loopback names and `address` that keeps its files in `folder`. They are made with the
    /// first certificate.
    pub(crate) fn new(binary: &Binary, folder: &Path, address: IpAddr) -> Self {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        if !address.is_loopback() {
            hosts.push(address.to_string());
        }
        Self { tercet: Tool::at(binary.path()), folder: folder.to_path_buf(), hosts }
    }

    /// With certificates that are for one address more.
    pub(crate) fn also_for(mut self, address: IpAddr) -> Self {
        self.hosts.push(address.to_string());
        self
    }

    /// A certificate for this machine's names.
    pub async fn issue(&self, name: &str) -> Result<Certificate> {
        let folder = self.folder.display().to_string();
        let mut arguments = vec!["certs", "new", "--dir", &folder, "--name", name];
        for host in &self.hosts {
            arguments.extend(["--host", host]);
        }
        self.tercet.run(&arguments).await?;
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        Ok(Certificate { certificate: file("pem"), key: file("key") })
    }

    /// The authority's own certificate, which clients have to know.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// [`Self::certificate_path`] as the text that clients take.
    pub fn certificate_text(&self) -> String {
        self.certificate_path().display().to_string()
    }

    /// Puts a copy of the authority's certificate where a client looks for it.
    pub fn install(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("a certificate lies in a folder")?;
        fs::create_dir_all(folder)?;
        fs::copy(self.certificate_path(), path)
            .with_context(|| format!("copy the authority to {}", path.display()))?;
        Ok(())
    }

    /// An HTTP client configuration that believes this authority and no other.
    pub fn trusted_by(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder> {
        let pem = fs::read(self.certificate_path())?;
        Ok(builder.tls_certs_only([reqwest::Certificate::from_pem(&pem)?]))
    }
}

impl Certificate {
    /// As what an HTTP client shows of itself.
    pub fn identity(&self) -> Result<reqwest::Identity> {
        let both = [fs::read(&self.certificate)?, fs::read(&self.key)?].concat();
        Ok(reqwest::Identity::from_pem(&both)?)
    }
}
