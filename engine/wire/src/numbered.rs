//! Enums whose variants are numbers on the wire. Their list stands in one place: the declaration.

/// Declares such an enum, the array of all its variants, and the way back from a number.
macro_rules! numbered {
    ($(#[$of_all:meta])* pub enum $name:ident { $($(#[$of_one:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$of_all])*
        #[repr(u8)]
        pub enum $name {
            $($(#[$of_one])* $variant = $code,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: [$name; [$($code),+].len()] = [$($name::$variant),+];

            /// The one behind a number on the wire.
            pub(crate) fn from_code(code: u8) -> Option<$name> {
                $name::ALL.into_iter().find(|it| *it as u8 == code)
            }
        }
    };
}

pub(crate) use numbered;
