//! Real images, made of Debian's packages without any registry, once per build folder.
//!
//! `chaos/setup.sh` downloads the packages; this unpacks them into layers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    binary::temporary_folder,
    content::{Blob, Image, MediaType, artifact_for, image_index},
    layout::Layout,
    tools::{Tool, cache_folder, require_root},
};

/// Part of the cache folder's name: raise it when the images are made otherwise.
const VERSION: u32 = 1;
/// The least that the large image's layers unpack to.
const ROOT_BYTES_MIN: u64 = 100 * 1024 * 1024;
/// The layers of the large image: a base system, then what people put on top. Each line is one layer.
/// `chaos/setup.sh` downloads the same packages.
const LAYERS: [&[&str]; 4] = [
    &["base-files", "bash", "coreutils", "dash", "grep", "libc-bin", "libc6", "libtinfo6", "sed"],
    &["perl-base", "locales", "tzdata"],
    &["git", "git-man"],
    &["iso-codes", "vim-runtime"],
];

/// The images as Rust values, and as an OCI layout whose tags are `busybox`, `debian`, `platforms` and
/// `bill-of-materials`.
#[derive(Clone, Debug)]
pub struct RealImages {
    /// `FROM scratch` with a static busybox.
    pub busybox: Image,
    /// Four layers that unpack to more than 100 MiB.
    pub debian: Image,
    /// Busybox for two processors.
    pub platforms: Image,
    /// The images that `platforms` names.
    pub per_platform: Vec<Image>,
    /// A list of the packages in `debian`, with `debian` as its subject.
    pub artifact: Image,
    /// All of them on disk.
    pub layout: Layout,
}

impl RealImages {
    /// The type of [`Self::artifact`].
    pub const ARTIFACT_TYPE: &'static str = "application/vnd.example.packages.v1+text";

    /// Takes the images from the build folder, or makes them.
    pub async fn get() -> Result<Self> {
        let folder = temporary_folder()?.join(format!("images-{VERSION}"));
        // Several test processes may want them at once; one makes them.
        let lock = fs::File::create(folder.with_extension("lock"))?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        let done = folder.join("done");
        if !done.is_file() {
            require_root("unpacking Debian's packages with their owners")?;
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            fs::create_dir_all(&folder)?;
            build(&folder).await.context("make the real images")?;
            fs::write(&done, "")?;
        }
        let images = Self::load(&folder)?;
        drop(lock);
        Ok(images)
    }

    fn load(folder: &Path) -> Result<Self> {
        let layout = Layout::open(&folder.join("layout"))?;
        let platforms = load_image(&layout, "platforms")?;
        let index: Value = serde_json::from_slice(&platforms.manifest.bytes)?;
        let children = index.pointer("/manifests").and_then(Value::as_array);
        let per_platform = children
            .context("no manifests in the index")?
            .iter()
            .map(|child| {
                let digest = child.pointer("/digest").and_then(Value::as_str);
                load_manifest(&layout, digest.context("no digest")?, MediaType::MANIFEST)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            busybox: load_image(&layout, "busybox")?,
            debian: load_image(&layout, "debian")?,
            artifact: load_image(&layout, "bill-of-materials")?,
            platforms,
            per_platform,
            layout,
        })
    }
}

async fn build(folder: &Path) -> Result<()> {
    let layout = Layout::create(&folder.join("layout"))?;
    let amd64 = busybox(folder, "amd64").await?;
    let arm64 = busybox(folder, "arm64").await?;
    layout.add(&arm64)?;
    layout.add_tagged(&amd64, "busybox")?;
    layout.add_tagged(&image_index(&[("amd64", &amd64), ("arm64", &arm64)]), "platforms")?;
    let mut layers = Vec::new();
    let mut unpacked_bytes = 0;
    for (number, packages) in LAYERS.iter().enumerate() {
        let root = folder.join(format!("layer-{number}"));
        for package in *packages {
            unpack(&find_package(package, "")?, &root).await?;
        }
        let (layer, size) = pack(&root).await?;
        unpacked_bytes += size;
        layers.push(layer);
    }
    ensure!(unpacked_bytes >= ROOT_BYTES_MIN, "only {unpacked_bytes} bytes of root file system");
    let debian = image(layers, "amd64", "/bin/bash");
    layout.add_tagged(&debian, "debian")?;
    let list = LAYERS.concat().join("\n");
    let artifact = artifact_for(&debian, RealImages::ARTIFACT_TYPE, Blob::new(list));
    layout.add_tagged(&artifact, "bill-of-materials")
}

/// `FROM scratch`, one layer: the program and a link for the shell.
async fn busybox(folder: &Path, architecture: &str) -> Result<Image> {
    let unpacked = folder.join(format!("busybox-{architecture}-package"));
    unpack(&find_package("busybox-static", architecture)?, &unpacked).await?;
    let program = ["bin/busybox", "usr/bin/busybox"]
        .into_iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_file())
        .context("the package busybox-static has no busybox")?;
    let root = folder.join(format!("busybox-{architecture}"));
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(program, root.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
    let (layer, _) = pack(&root).await?;
    fs::remove_dir_all(&unpacked)?;
    Ok(image(vec![layer], architecture, "/bin/sh"))
}

struct Layer {
    blob: Blob,
    /// Digest of the tar before compression, which the config names.
    diff_id: String,
}

fn image(layers: Vec<Layer>, architecture: &str, command: &str) -> Image {
    let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Cmd": [command], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = Blob::new(config.to_string());
    let descriptors: Vec<Value> =
        layers.iter().map(|layer| layer.blob.descriptor(MediaType::LAYER)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "config": config.descriptor(MediaType::CONFIG), "layers": descriptors,
    });
    let blobs = std::iter::once(config).chain(layers.into_iter().map(|layer| layer.blob));
    Image::of_json(&manifest, MediaType::MANIFEST, blobs.collect())
}

/// The newest downloaded file of a package. An empty architecture takes any but arm64.
fn find_package(package: &str, architecture: &str) -> Result<PathBuf> {
    let folder = cache_folder()?.join("packages");
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let fits = match architecture {
                "" => !name.ends_with("_arm64.deb"),
                wanted => name.ends_with(&format!("_{wanted}.deb")),
            };
            name.starts_with(&format!("{package}_")) && fits
        })
        .collect();
    found.sort();
    match found.pop() {
        Some(path) => Ok(path),
        None => bail!(
            "no package {package} {architecture} in {}: run chaos/setup.sh, which downloads it",
            folder.display()
        ),
    }
}

async fn unpack(package: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let (package, root) = (package.display().to_string(), root.display().to_string());
    Tool::find("dpkg-deb")?.run(&["-x", &package, &root]).await?;
    Ok(())
}

/// A folder as a layer, the same bytes each time; the folder is removed. Also the tar's size.
async fn pack(root: &Path) -> Result<(Layer, u64)> {
    let tar = root.with_extension("tar");
    let (tar_text, root_text) = (tar.display().to_string(), root.display().to_string());
    let arguments = ["--sort=name", "--mtime=@0", "--numeric-owner", "-C", &root_text, "-cf"];
    Tool::find("tar")?.run(&[&arguments[..], &[&tar_text, "."]].concat()).await?;
    fs::remove_dir_all(root)?;
    let plain = Blob::new(fs::read(&tar)?);
    // Without name and time in its header the compressed file is the same each time too.
    Tool::find("gzip")?.run(&["-n", "-1", "-f", &tar_text]).await?;
    let zipped = root.with_extension("tar.gz");
    let blob = Blob::new(fs::read(&zipped)?);
    fs::remove_file(&zipped)?;
    let size = plain.bytes.len() as u64;
    Ok((Layer { blob, diff_id: plain.digest }, size))
}

/// The image that the layout's index names by a tag.
fn load_image(layout: &Layout, tag: &str) -> Result<Image> {
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json"))?)?;
    let mut named = index.pointer("/manifests").and_then(Value::as_array).into_iter().flatten();
    let name = "/annotations/org.opencontainers.image.ref.name";
    let descriptor = named
        .find(|item| item.pointer(name).and_then(Value::as_str) == Some(tag))
        .with_context(|| format!("no {tag} in the layout"))?;
    let text = |field: &str| descriptor.get(field).and_then(Value::as_str);
    let digest = text("digest").context("no digest")?;
    load_manifest(layout, digest, text("mediaType").unwrap_or(MediaType::MANIFEST))
}

fn load_manifest(layout: &Layout, digest: &str, media_type: &str) -> Result<Image> {
    let bytes = layout.read(digest)?;
    let manifest: Value = serde_json::from_slice(&bytes)?;
    let mut blobs = Vec::new();
    let layers = manifest.get("layers").and_then(Value::as_array).into_iter().flatten();
    for part in manifest.get("config").into_iter().chain(layers) {
        let digest = part.get("digest").and_then(Value::as_str).context("no digest")?;
        blobs.push(Blob::new(layout.read(digest)?));
    }
    Ok(Image { manifest: Blob::new(bytes), media_type: media_type.to_owned(), blobs })
}
