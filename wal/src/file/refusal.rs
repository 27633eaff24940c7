//! How a disk says that it cannot give what stands in one place.

use std::io;

use rustix::io::Errno;

/// What block devices and file systems answer then.
const REFUSALS: [Errno; 7] =
    [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::REMOTEIO, Errno::BADMSG, Errno::UCLEAN, Errno::HWPOISON];

/// Whether the disk says that it cannot give what stands in one place.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| REFUSALS.iter().any(|refusal| refusal.raw_os_error() == code))
}

/// The same answer, for what cannot be read at all.
pub(crate) fn refusal() -> io::Error {
    Errno::IO.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_a_place_is_rot() {
        for (errno, is_about_a_place) in [
            (Errno::IO, true),
            (Errno::NODATA, true),
            (Errno::MFILE, false),
            (Errno::NOMEM, false),
            (Errno::INVAL, false),
            (Errno::NODEV, false),
        ] {
            assert_eq!(is_refusal(&errno.into()), is_about_a_place, "{errno}");
        }
        assert!(!is_refusal(&io::ErrorKind::UnexpectedEof.into()), "a file that is cut short is not rotten");
    }
}
