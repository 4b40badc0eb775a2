//! Encrypted bundles: the container byte by byte, by a reader that is written from its page alone; and that nothing is
//! taken in of one that was cut, changed or put together anew.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests are tests.

mod common;

use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use ed25519_compact::x25519;
use ed25519_compact::{KeyPair, PublicKey, Seed};
use packmule::{BundleProblem, Encrypting, Encryption, Engine, Error, Readers, Recipient};
use sha2::{Digest, Sha256};

use common::*;

const CHUNK: usize = 65_536 + 16;
const PASSPHRASE: &[u8] = b"correct horse";

fn encrypt(readers: &Readers, plain: &[u8]) -> Vec<u8> {
    let mut out = Encrypting::new(Vec::new(), readers).unwrap();
    out.write_all(plain).unwrap();
    out.finish().unwrap();
    std::mem::take(out.inner())
}

fn export(engine: &mut Engine, readers: &Readers) -> Vec<u8> {
    let mut out = Encrypting::new(Vec::new(), readers).unwrap();
    engine.export(&mut out, Recipient::Anyone).unwrap();
    out.finish().unwrap();
    std::mem::take(out.inner())
}

fn import(engine: &mut Engine, bytes: &[u8], passphrase: Option<&[u8]>) -> packmule::Result<u64> {
    let mut file = engine.open_bundle(Cursor::new(bytes.to_vec()), passphrase)?;
    Ok(engine.import(&mut file, &mut |_| ())?.ops)
}

/// The seed in a device's key file.
fn seed_of(engine: &Engine) -> [u8; 32] {
    let text = std::fs::read_to_string(key_file(engine.path())).unwrap();
    from_hex(text.lines().nth(1).unwrap()).try_into().unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn open_with(key: &[u8], number: u64, last: bool, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, tag) = (bytes[..bytes.len() - 16].to_vec(), &bytes[bytes.len() - 16..]);
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[11] = last.into();
    let (key, tag) = (<[u8; 32]>::try_from(key).unwrap(), <[u8; 16]>::try_from(tag).unwrap());
    ChaCha20Poly1305::new(&Key::from(key))
        .decrypt_inout_detached(&Nonce::from(nonce), &[], plain.as_mut_slice().into(), &Tag::from(tag))
        .ok()
        .map(|()| plain)
}

/// Reads a container as its page describes it: the file key by `unlock`, of all before the chunks; then these.
fn read(bytes: &[u8], head: usize, file_key: &[u8]) -> Vec<u8> {
    let all = [b"packmule/1 bundle body", file_key, &Sha256::digest(&bytes[..head])[..]].concat();
    let key = Sha256::digest(all);
    let chunks: Vec<&[u8]> = bytes[head..].chunks(CHUNK).collect();
    let mut plain = Vec::new();
    for (n, chunk) in chunks.iter().enumerate() {
        plain.extend(open_with(&key, n as u64, n + 1 == chunks.len(), chunk).unwrap());
    }
    plain
}

/// Reads one to devices with the seed of one of them: the ids of its readers, and what is in it.
fn read_as_device(bytes: &[u8], seed: [u8; 32]) -> (Vec<[u8; 16]>, Vec<u8>) {
    assert_eq!(bytes[..10], *b"\x89PKE\r\n\x1a\n\x01\x00");
    let slots = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let public: [u8; 32] = bytes[12..44].try_into().unwrap();
    let pair = KeyPair::from_seed(Seed::new(seed));
    let own = x25519::PublicKey::from_ed25519(&PublicKey::new(*pair.pk)).unwrap();
    let shared =
        x25519::PublicKey::new(public).dh(&x25519::SecretKey::from_ed25519(&pair.sk).unwrap()).unwrap();
    let key = Sha256::digest([&b"packmule/1 device slot"[..], &public, &own[..], &shared[..]].concat());
    let head = 44 + 48 * slots;
    let file_key = bytes[44..head].chunks(48).find_map(|slot| open_with(&key, 0, true, slot)).unwrap();
    let plain = read(bytes, head, &file_key);
    let count = usize::from(u16::from_le_bytes([plain[0], plain[1]]));
    let ids = plain[2..2 + 16 * count].chunks(16).map(|id| id.try_into().unwrap()).collect();
    (ids, plain[2 + 16 * count..].to_vec())
}

fn read_with_passphrase(bytes: &[u8], passphrase: &[u8]) -> Vec<u8> {
    assert_eq!(bytes[..10], *b"\x89PKE\r\n\x1a\n\x01\x01");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((number(26), number(30)), (12_288, 3));
    let params = Params::new(number(26), number(30), 1, Some(32)).unwrap();
    let (mut key, mut blocks) = ([0; 32], vec![Block::new(); params.block_count()]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, &bytes[10..26], &mut key, &mut blocks[..])
        .unwrap();
    let file_key = open_with(&key, 0, true, &bytes[34..82]).unwrap();
    let plain = read(bytes, 82, &file_key);
    assert_eq!(plain[..2], [0, 0]);
    plain[2..].to_vec()
}

/// Two devices that know each other; the second has rows.
fn two(world: &World) -> (Engine, Engine) {
    let table = "CREATE TABLE t (k INTEGER PRIMARY KEY, v)";
    let (mut a, mut b) = (world.board_with("a", table, &["t"]), world.board_with("b", table, &["t"]));
    carry(&mut b, &mut a);
    carry(&mut a, &mut b);
    (a, b)
}

/// The bytes are those of the file, and both readers find in it what went in.
fn pinned(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.hex"));
    let hex: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect()).collect();
    if std::env::var_os("PACKMULE_BLESS").is_some() {
        std::fs::write(&path, hex.join("\n") + "\n").unwrap();
    }
    assert_eq!(from_hex(&std::fs::read_to_string(path).unwrap()), bytes, "{name}");
}

#[test]
fn the_container_is_as_its_page_has_it() {
    let world = World::new();
    let (a, b) = two(&world);
    let readers = a.device_readers(&[b.identity().id]).unwrap();
    let bytes = encrypt(&readers, b"what is in it");
    pinned("encrypted-devices", &bytes);
    for device in [&a, &b] {
        let (ids, plain) = read_as_device(&bytes, seed_of(device));
        assert_eq!(plain, b"what is in it");
        assert_eq!(
            ids.iter().copied().collect::<std::collections::BTreeSet<_>>(),
            [a.identity().id.0, b.identity().id.0].into()
        );
    }
    let bytes = encrypt(&a.passphrase_readers(PASSPHRASE), b"what is in it");
    pinned("encrypted-passphrase", &bytes);
    assert_eq!(read_with_passphrase(&bytes, PASSPHRASE), b"what is in it");
    // Of any length, around the border of a chunk.
    let ids = 2 + 2 * 16;
    for len in [0, 1, 65_536 - ids - 1, 65_536 - ids, 65_536 - ids + 1, 131_072 - ids, 200_000] {
        let plain: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let bytes = encrypt(&readers, &plain);
        assert_eq!(read_as_device(&bytes, seed_of(&b)).1, plain, "{len}");
        let mut file = b.open_bundle(Cursor::new(&bytes), None).unwrap();
        assert!(matches!(file.encryption(), Some(Encryption::Devices(of)) if of.len() == 2));
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), len as u64);
        let from = len as u64 / 3;
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, plain[from as usize..], "{len}");
    }
}

/// A large bundle, cut, changed and put together anew in each part of it: nothing of it is taken in.
#[test]
fn what_was_cut_or_changed_is_refused_before_anything_is_applied() {
    let world = World::new();
    let (mut a, mut b) = two(&world);
    for n in 0..40 {
        sql(&a, &format!("INSERT INTO t VALUES ({n}, randomblob(8000))"));
    }
    let readers = a.device_readers(&[b.identity().id]).unwrap();
    let passphrase = a.passphrase_readers(PASSPHRASE);
    for (readers, head, secret) in [(readers, 44 + 4 * 48, None), (passphrase, 82, Some(PASSPHRASE))] {
        let whole = export(&mut a, &readers);
        let chunks = (whole.len() - head).div_ceil(CHUNK);
        assert!(chunks >= 5, "{chunks}");
        let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
        // Each byte of the head but some of the largest part, the ends of each chunk, and its tag.
        let mut places: Vec<usize> =
            (0..head).filter(|at| secret.is_none() || at % 7 == 0 || *at < 12).collect();
        for n in 0..chunks {
            let (begin, end) = (head + n * CHUNK, (head + (n + 1) * CHUNK).min(whole.len()));
            places.extend([begin, begin + 1, (begin + end) / 2, end - 17, end - 16, end - 1]);
        }
        for at in places {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bad.push((format!("byte {at} flipped"), bytes));
        }
        let borders = (0..=chunks).map(|n| (head + n * CHUNK).min(whole.len()));
        for at in borders.flat_map(|at| [at.saturating_sub(1), at, at + 1]).chain([8, 9, 10, 40]) {
            if at < whole.len() {
                bad.push((format!("cut at {at}"), whole[..at].to_vec()));
            }
        }
        bad.push(("a byte more".into(), [&whole[..], &[0]].concat()));
        bad.push(("a chunk more".into(), [&whole[..], &whole[head..head + CHUNK]].concat()));
        let (first, rest) = whole[head..].split_at(CHUNK);
        let (second, rest) = rest.split_at(CHUNK);
        bad.push(("without its first chunk".into(), [&whole[..head], second, rest].concat()));
        bad.push(("two chunks exchanged".into(), [&whole[..head], second, first, rest].concat()));
        bad.push((
            "the last chunk twice".into(),
            [&whole[..], &whole[head + (chunks - 1) * CHUNK..]].concat(),
        ));
        let before = b.digest(false).unwrap();
        for (what, bytes) in bad {
            match import(&mut b, &bytes, secret) {
                Err(Error::Bundle { .. }) => {}
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(b.digest(false).unwrap(), before, "{what}");
        }
        // The control: as it was made, it is taken in.
        let ops = import(&mut b, &whole, secret).unwrap();
        assert_eq!(ops, if secret.is_none() { 40 } else { 0 });
        digests_equal(&[&a, &b]);
    }
}

#[test]
fn no_other_key_opens_it() {
    let world = World::new();
    let (mut a, mut b) = two(&world);
    let mut other = world.board("other");
    let bytes = {
        let readers = a.fleet_readers().unwrap();
        export(&mut a, &readers)
    };
    let refused = import(&mut other, &bytes, None);
    assert!(matches!(
        refused,
        Err(Error::Bundle { cause: BundleProblem::NotForUs { slots: 4, keyless: false }, .. })
    ));
    let refused = packmule::open_bundle(Cursor::new(&bytes), None).err();
    assert!(matches!(
        refused,
        Some(Error::Bundle { cause: BundleProblem::NotForUs { keyless: true, .. }, .. })
    ));
    let bytes = {
        let readers = a.passphrase_readers(PASSPHRASE);
        export(&mut a, &readers)
    };
    for (given, wrong) in [(None, false), (Some(&b"Correct horse"[..]), true), (Some(&b""[..]), true)] {
        match import(&mut b, &bytes, given) {
            Err(Error::Bundle { cause: BundleProblem::WrongPassphrase, .. }) if wrong => {}
            Err(Error::Bundle { cause: BundleProblem::PassphraseNeeded, .. }) if !wrong => {}
            other => panic!("{other:?}"),
        }
    }
    // It asks for no more memory or time than it may.
    for (at, number) in [(26, u32::MAX), (26, 65_537), (26, 0), (30, u32::MAX), (30, 0)] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        let refused = import(&mut b, &bytes, Some(PASSPHRASE));
        assert!(
            matches!(refused, Err(Error::Bundle { cause: BundleProblem::Structure(_), .. })),
            "{refused:?}"
        );
    }
    // One with more slots than there can be, and one of a later version.
    let bytes = {
        let readers = a.fleet_readers().unwrap();
        export(&mut a, &readers)
    };
    for (at, byte) in [(8, 2), (9, 2), (11, 0xff)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert!(matches!(import(&mut b, &bytes, None), Err(Error::Bundle { .. })));
    }
}

/// How many slots there are shows how many readers only roughly.
#[test]
fn slots_come_in_powers_of_two() {
    let world = World::new();
    let mut base = world.base("base");
    for n in 0..6 {
        let mut board = world.board(&format!("board {n}"));
        carry(&mut board, &mut base);
        let bytes = encrypt(&base.fleet_readers().unwrap(), b"");
        let slots = if n < 3 { 4 } else { 8 };
        assert_eq!(bytes[10..12], [slots, 0], "{n}");
        assert_eq!(bytes.len(), 44 + usize::from(slots) * 48 + 2 + (n + 2) * 16 + 16);
    }
}
