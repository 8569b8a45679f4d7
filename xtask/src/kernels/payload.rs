//! The kernel itself in the file that boot loaders take: an x86 bzImage
//! (Documentation/arch/x86/boot.rst) and an arm64 EFI zboot image
//! (drivers/firmware/efi/libstub/zboot-header.S) carry it compressed, a plain arm64
//! Image is the kernel.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// The first bytes of what is in it, and the program that unpacks that.
const COMPRESSIONS: [(&[u8], &str); 4] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x1f\x8b", "gzip"),
];

/// What lies compressed in an image.
struct Payload<'a> {
    bytes: &'a [u8],
    /// Its unpacked length, by its last four bytes.
    length: usize,
}

/// The kernel in an image: an ELF file, or an arm64 Image.
///
/// # Errors
/// If the image is of another kind or cut off, or the program that unpacks it is absent
/// or fails.
pub(crate) fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    if image.get(0x38..0x3c) == Some(b"ARMd") {
        return Ok(image.to_vec());
    }
    let payload = locate(image).context("this is no kernel image that whoclosed knows")?;
    let program = COMPRESSIONS
        .iter()
        .find(|(magic, _)| payload.bytes.starts_with(magic))
        .map(|(_, program)| *program)
        .context("the kernel is compressed by a method that is not known here")?;
    let kernel = decompress(program, payload.bytes)?;
    ensure!(
        kernel.len() == payload.length,
        "{program} unpacked {} bytes of a kernel that has {}",
        kernel.len(),
        payload.length
    );
    Ok(kernel)
}

fn locate(image: &[u8]) -> Option<Payload<'_>> {
    let (start, length) = if image.get(0x202..0x206) == Some(b"HdrS") {
        let setup = usize::from(*image.get(0x1f1)?);
        // The setup code is 4 sectors long where its length is 0; the boot sector precedes.
        let setup = if setup == 0 { 4 } else { setup };
        let start = (setup + 1) * 512 + word(image, 0x248)?;
        (start, word(image, 0x24c)?)
    } else if image.get(4..8) == Some(b"zimg") {
        (word(image, 8)?, word(image, 12)?)
    } else {
        return None;
    };
    let whole = image.get(start..start.checked_add(length)?)?;
    let unpacked = word(whole, length.checked_sub(4)?)?;
    // gzip's own last four bytes are its length; the kernel's build appends them to the rest.
    let bytes = if whole.starts_with(b"\x1f\x8b") {
        whole
    } else {
        whole.get(..length - 4)?
    };
    Some(Payload {
        bytes,
        length: unpacked,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(word).ok()
}

fn decompress(program: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}, which unpacks this kernel"))?;
    let mut stdin = child.stdin.take().context("the pipe is gone")?;
    let output = thread::scope(|scope| {
        // What it makes of a pipe that breaks, its exit status says.
        scope.spawn(move || stdin.write_all(bytes));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} cannot unpack this kernel: {}", said.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &[u8] = b"\x7fELF and what follows, and what follows, and what follows";

    fn compressed(program: &str) -> Vec<u8> {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(KERNEL).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    fn put(image: &mut [u8], at: usize, word: usize) {
        image[at..at + 4].copy_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
    }

    /// An x86 image of 3 sectors of setup code, the kernel 16 bytes behind it.
    fn bz_image() -> Vec<u8> {
        let packed = compressed("gzip");
        let mut image = vec![0; 4 * 512 + 16];
        image[0x1f1] = 3;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        put(&mut image, 0x248, 16);
        put(&mut image, 0x24c, packed.len());
        image.extend(packed);
        image.extend(b"what follows the kernel");
        image
    }

    #[test]
    fn the_kernel_is_found_behind_the_setup_code() {
        assert_eq!(unpack(&bz_image()).unwrap(), KERNEL);
    }

    #[test]
    fn the_kernel_is_found_in_an_efi_zboot_image() {
        let packed = compressed("gzip");
        let mut image = vec![0; 64];
        image[4..8].copy_from_slice(b"zimg");
        put(&mut image, 8, 64);
        put(&mut image, 12, packed.len());
        image.extend(packed);
        assert_eq!(unpack(&image).unwrap(), KERNEL);
    }

    #[test]
    fn a_plain_arm64_image_is_the_kernel() {
        let mut image = vec![0; 64];
        image[0x38..0x3c].copy_from_slice(b"ARMd");
        assert_eq!(unpack(&image).unwrap(), image);
    }

    #[test]
    fn an_image_that_is_cut_off_or_of_another_length_is_an_error() {
        let image = bz_image();
        let end = image.len() - b"what follows the kernel".len();
        for length in (0..end).step_by(7).chain([end - 1]) {
            assert!(unpack(&image[..length]).is_err(), "cut at {length}");
        }
        let mut other = image;
        other[end - 1] ^= 1;
        assert!(unpack(&other).is_err());
        assert!(unpack(KERNEL).is_err());
    }
}
