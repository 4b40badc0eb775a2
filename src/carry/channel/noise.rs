//! The encrypted channel: `Noise_NN_25519_ChaChaPoly_SHA256` of the Noise protocol framework, revision 34.
//!
//! Both ends draw a key for this channel alone, so that what was once sent is not read with a key that is stolen later.
//! Noise proves nothing of who they are: the session does, whose nonces follow from the channel
//! ([`Channel::nonces`]). Who stands in between has two channels with two pairs of nonces, and a proof of one is of no
//! use in the other.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use ed25519_compact::x25519;
use sha2::{Digest, Sha256};

/// The bytes by which what is encrypted gets longer.
pub(super) const TAG: usize = 16;
/// The bytes of the two messages of the handshake.
pub(super) const FIRST: usize = 32;
pub(super) const SECOND: usize = 32 + TAG;

const NAME: &[u8; 32] = b"Noise_NN_25519_ChaChaPoly_SHA256";

/// What came is not what the other end sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tampered;

/// A handshake that has begun.
pub(super) struct Handshake {
    hash: [u8; 32],
    chaining: [u8; 32],
    secret: x25519::SecretKey,
    public: [u8; 32],
}

impl Handshake {
    /// Begins, with a random secret. Both ends have the same prologue.
    pub(super) fn new(prologue: &[u8], secret: [u8; 32]) -> Result<Self, Tampered> {
        let secret = x25519::SecretKey::new(secret);
        let public = *secret.recover_public_key().map_err(|_| Tampered)?;
        let mut new = Self { hash: *NAME, chaining: *NAME, secret, public };
        new.mix(prologue);
        Ok(new)
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.hash = sha256(&[&self.hash, bytes]);
    }

    /// Returns what who begins sends first.
    pub(super) fn first_message(&mut self) -> [u8; FIRST] {
        self.mix(&self.public.clone());
        // An empty payload, in clear.
        self.mix(&[]);
        self.public
    }

    /// Answers what came first.
    pub(super) fn answer(mut self, first: &[u8; FIRST]) -> Result<([u8; SECOND], Channel), Tampered> {
        self.mix(first);
        self.mix(&[]);
        self.mix(&self.public.clone());
        let key = self.agree(first)?;
        let tag = Keys::new(&key).seal_with(&self.hash, &mut [])?;
        self.mix(&tag);
        let mut second = [0; SECOND];
        second[..32].copy_from_slice(&self.public);
        second[32..].copy_from_slice(&tag);
        let [of_first, of_second] = self.both_ways();
        Ok((second, Channel { send: of_second, receive: of_first, hash: self.hash, began: false }))
    }

    /// Takes the answer, at the end that began.
    pub(super) fn finish(mut self, second: &[u8; SECOND]) -> Result<Channel, Tampered> {
        let (mut public, mut tag) = ([0; 32], [0; TAG]);
        public.copy_from_slice(&second[..32]);
        tag.copy_from_slice(&second[32..]);
        self.mix(&public);
        let key = self.agree(&public)?;
        Keys::new(&key).open_with(&self.hash, &mut [], &tag)?;
        self.mix(&tag);
        let [of_first, of_second] = self.both_ways();
        Ok(Channel { send: of_first, receive: of_second, hash: self.hash, began: true })
    }

    /// Mixes the agreed key in. Returns the key of the handshake's payload.
    fn agree(&mut self, public: &[u8; 32]) -> Result<[u8; 32], Tampered> {
        // A point of small order agrees with nobody.
        let agreed = x25519::PublicKey::new(*public).dh(&self.secret).map_err(|_| Tampered)?;
        let [chaining, key] = derive(&self.chaining, &agreed[..]);
        self.chaining = chaining;
        Ok(key)
    }

    fn both_ways(&self) -> [Keys; 2] {
        derive(&self.chaining, &[]).map(|key| Keys::new(&key))
    }
}

/// Both ways of an encrypted channel.
pub(super) struct Channel {
    send: Keys,
    receive: Keys,
    hash: [u8; 32],
    began: bool,
}

impl Channel {
    /// Encrypts in place. Returns the tag, which goes behind.
    pub(super) fn seal(&mut self, bytes: &mut [u8]) -> Result<[u8; TAG], Tampered> {
        self.send.seal_with(&[], bytes)
    }

    /// Decrypts in place what was sent next.
    pub(super) fn open(&mut self, bytes: &mut [u8], tag: &[u8; TAG]) -> Result<(), Tampered> {
        self.receive.open_with(&[], bytes, tag)
    }

    /// Returns the nonces of the session in this channel: this end's, the other end's.
    pub(super) fn nonces(&self) -> [[u8; 32]; 2] {
        let mut nonces =
            [b"of who began", b"of who heard"].map(|end| sha256(&[b"packmule session ", end, &self.hash]));
        if !self.began {
            nonces.reverse();
        }
        nonces
    }
}

/// One way: a key and how much it has encrypted.
struct Keys {
    cipher: ChaCha20Poly1305,
    count: u64,
}

impl Keys {
    fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(&Key::from(*key)), count: 0 }
    }

    /// Returns the next nonce; each counts once.
    fn nonce(&mut self) -> Result<Nonce, Tampered> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.count.to_le_bytes());
        self.count = self.count.checked_add(1).ok_or(Tampered)?;
        Ok(nonce.into())
    }

    fn seal_with(&mut self, beside: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG], Tampered> {
        let nonce = self.nonce()?;
        let sealed = self.cipher.encrypt_inout_detached(&nonce, beside, bytes.into());
        Ok(sealed.map_err(|_| Tampered)?.into())
    }

    fn open_with(&mut self, beside: &[u8], bytes: &mut [u8], tag: &[u8; TAG]) -> Result<(), Tampered> {
        let nonce = self.nonce()?;
        let opened = self.cipher.decrypt_inout_detached(&nonce, beside, bytes.into(), &Tag::from(*tag));
        opened.map_err(|_| Tampered)
    }
}

/// HKDF of the framework, with two outputs.
fn derive(chaining: &[u8; 32], input: &[u8]) -> [[u8; 32]; 2] {
    let key = hmac(chaining, &[input]);
    let first = hmac(&key, &[&[1]]);
    [first, hmac(&key, &[&first, &[2]])]
}

/// HMAC-SHA256.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner =
        parts.iter().fold(Sha256::new_with_prefix(padded(0x36)), |hash, part| hash.chain_update(part));
    sha256(&[&padded(0x5c), &inner.finalize()[..]])
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Tests.
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        assert_eq!(hex.len(), 2 * N);
        std::array::from_fn(digit)
    }

    fn pair() -> (Channel, Channel) {
        let secret = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";
        let other = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60";
        let mut one = Handshake::new(b"notsecret", bytes(secret)).unwrap();
        let two = Handshake::new(b"notsecret", bytes(other)).unwrap();
        let first = one.first_message();
        assert_eq!(first, bytes("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"));
        let (second, two) = two.answer(&first).unwrap();
        let known = "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d484665cda04f69d491f9bf509e632fc1a20dd";
        assert_eq!(second, bytes(known));
        (one.finish(&second).unwrap(), two)
    }

    /// The vectors of `screech`, which other implementations pass too.
    #[test]
    fn it_is_the_handshake_that_others_make() {
        let (mut one, mut two) = pair();
        let mut text = *b"yellowsubmarine";
        let tag = one.seal(&mut text).unwrap();
        let known = "96cd46be111804586a935795eeb4ce62bdec121048a10520b00266b22722eb";
        assert_eq!([&text[..], &tag[..]].concat(), bytes::<31>(known));
        two.open(&mut text, &tag).unwrap();
        assert_eq!(&text, b"yellowsubmarine");
        let mut text = *b"submarineyellow";
        let tag = two.seal(&mut text).unwrap();
        let known = "fe2bc534e31964c0bd56337223e921565e39dbc5f156aa04766ced4689a2a2";
        assert_eq!([&text[..], &tag[..]].concat(), bytes::<31>(known));
    }

    #[test]
    fn what_is_flipped_repeated_or_left_out_is_refused() {
        let sealed = |one: &mut Channel| {
            let mut text = *b"a row";
            let tag = one.seal(&mut text).unwrap();
            (text, tag)
        };
        let (mut one, mut two) = pair();
        let (first, tag) = sealed(&mut one);
        for bit in 0..first.len() * 8 {
            let mut flipped = first;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut again = pair().1;
            assert_eq!(again.open(&mut flipped, &tag), Err(Tampered));
        }
        two.open(&mut first.clone(), &tag).unwrap();
        assert_eq!(two.open(&mut first.clone(), &tag), Err(Tampered), "repeated");
        let (mut one, mut two) = pair();
        sealed(&mut one);
        let (mut second, tag) = sealed(&mut one);
        assert_eq!(two.open(&mut second, &tag), Err(Tampered), "one is left out");
    }

    #[test]
    fn each_end_knows_both_nonces_and_another_channel_has_others() {
        let (one, two) = pair();
        let [own, others] = one.nonces();
        assert_eq!(two.nonces(), [others, own]);
        assert_ne!(own, others);
        let mut again = Handshake::new(b"notsecret", [7; 32]).unwrap();
        let (_, between) =
            Handshake::new(b"notsecret", [9; 32]).unwrap().answer(&again.first_message()).unwrap();
        assert!(!between.nonces().contains(&own));
    }

    #[test]
    fn a_key_that_agrees_with_everybody_is_refused() {
        assert!(Handshake::new(b"", [7; 32]).unwrap().answer(&[0; 32]).is_err());
    }
}
