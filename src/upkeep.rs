//! Background loops, each the only writer of one part of the world.
