//! What every record has: a kind and a size at its front, and decoding that
//! checks both.

use core::fmt;

/// The kinds of record in the ring buffer; the first word of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`crate::connection::Connection`]
    Connection = 1,
    /// [`crate::logged::Logged`]
    Logged = 2,
    /// [`crate::continuation::Continuation`]
    Continuation = 3,
    /// [`crate::peer::PeerClose`]
    PeerClose = 4,
    /// [`crate::backend::BackendExit`]
    BackendExit = 5,
    /// [`crate::accepted::Accepted`]
    Accepted = 6,
    /// [`crate::written::Written`]
    Written = 9,
}

impl Kind {
    /// The kind of an undecoded record.
    ///
    /// # Errors
    /// If the record is shorter than its first word or the kind is not known.
    pub fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(first) = bytes.first_chunk::<4>() else {
            return Err(DecodeError::Size {
                expected: 4,
                found: bytes.len(),
            });
        };
        match u32::from_le_bytes(*first) {
            1 => Ok(Self::Connection),
            2 => Ok(Self::Logged),
            3 => Ok(Self::Continuation),
            4 => Ok(Self::PeerClose),
            5 => Ok(Self::BackendExit),
            6 => Ok(Self::Accepted),
            9 => Ok(Self::Written),
            other => Err(DecodeError::Kind(other)),
        }
    }

    /// Checks the words at the front of a record that was read as one of this kind.
    ///
    /// # Errors
    /// If they name another kind, or another size than `expected`.
    pub(crate) const fn check(
        self,
        kind: u32,
        size: u32,
        expected: usize,
    ) -> Result<(), DecodeError> {
        let found = size as usize;
        if kind != self as u32 {
            return Err(DecodeError::Kind(kind));
        }
        if found != expected {
            return Err(DecodeError::Size { expected, found });
        }
        Ok(())
    }
}

/// Why bytes from the kernel are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The first word names no known kind, or another one than was asked for.
    Kind(u32),
    /// The record has another size than this program was built for.
    Size {
        /// Bytes that the record must have.
        expected: usize,
        /// Bytes that it has, or says that it has.
        found: usize,
    },
    /// A field holds a value that the programs never write.
    Value(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "unknown record kind {kind}"),
            Self::Size { expected, found } => {
                write!(f, "record of {found} bytes where {expected} were expected")
            }
            Self::Value(field) => write!(f, "impossible value in field {field}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A type that may stand in a record: its zero, and how it is read.
pub trait Field: Sized + Copy {
    /// All bytes zero.
    const ZERO: Self;
    /// Takes the value from the front of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than the type; callers check the record's size first.
    fn take(bytes: &mut &[u8]) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Field for $t {
            const ZERO: Self = 0;
            #[inline]
            fn take(bytes: &mut &[u8]) -> Self {
                let (front, rest) = bytes.split_at(size_of::<$t>());
                *bytes = rest;
                let mut raw = [0u8; size_of::<$t>()];
                raw.copy_from_slice(front);
                <$t>::from_le_bytes(raw)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64);

impl<T: Field, const N: usize> Field for [T; N] {
    const ZERO: Self = [T::ZERO; N];
    #[inline]
    fn take(bytes: &mut &[u8]) -> Self {
        core::array::from_fn(|_| T::take(bytes))
    }
}

/// Declares a wire struct: `repr(C)`, its size and last field's offset asserted
/// against the numbers given, no implicit padding, a zero value and a decoder.
macro_rules! wire {
    (
        $(#[$meta:meta])*
        pub struct $name:ident, size $size:literal, last $last:ident at $offset:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size, "size differs from the one declared");
            assert!(core::mem::offset_of!($name, $last) == $offset, "last field moved");
            assert!(0 $(+ size_of::<$type>())* == $size, "implicit padding");
        };

        impl $name {
            /// Bytes on the wire.
            pub const SIZE: usize = $size;

            /// All bytes zero.
            pub const ZERO: Self =
                Self { $($field: <$type as $crate::record::Field>::ZERO,)* };

            /// Reads the fields without judging them.
            ///
            /// # Errors
            /// If `bytes` has another length than [`Self::SIZE`].
            pub fn read(bytes: &[u8]) -> Result<Self, $crate::record::DecodeError> {
                if bytes.len() != Self::SIZE {
                    return Err($crate::record::DecodeError::Size {
                        expected: Self::SIZE,
                        found: bytes.len(),
                    });
                }
                let mut bytes = bytes;
                Ok(Self {
                    $($field: <$type as $crate::record::Field>::take(&mut bytes),)*
                })
            }
        }
    };
}
pub(crate) use wire;
