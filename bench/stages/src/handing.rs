//! What two workers share, without the second core: a burst staged, published, and taken out of the ring again. What the
//! cache lines cost that go from core to core is another matter, see `./scripts/bench figures --only cores`.

use crate::{BURST, Error, Scale, Stage};
use handoff::{Consumer, Outbox};
use std::hint::black_box;

/// What is handed over of a packet: a packed frame is as large.
type Parcel = [u64; 2];

/// Parcels that one worker may have waiting at another.
const RING: usize = 1024;

struct Ring {
    out: Outbox<Parcel>,
    coming: Consumer<Parcel>,
}

impl Stage for Ring {
    fn burst(&mut self) -> usize {
        for number in 0..BURST as u64 {
            if self.out.stage(black_box([number, 1])).is_err() {
                return 0;
            }
        }
        self.out.publish();
        (0..BURST as u64).filter(|number| self.coming.pop().is_ok_and(|parcel| parcel[0] == *number)).count()
    }
}

pub(crate) fn ring(_: Scale) -> Result<Box<dyn Stage>, Error> {
    let (giver, coming) = handoff::ring(RING);
    Ok(Box::new(Ring { out: Outbox::new(giver), coming }))
}
