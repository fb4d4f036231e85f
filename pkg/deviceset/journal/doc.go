// Package journal keeps a growing sequence of frames in two slots of a fixed size,
// so that whatever was synced is read back, and nothing else passes for it.
//
// A slot is a header, a checkpoint and the frames that came after it:
//
//	block 0          header: whose slot it is, and which of the two is newer
//	from block 1     checkpoint: all that went before, as one text
//	then, aligned    frames, numbered without a gap, each of whole blocks
//
// Frames are appended to the newer slot until it is full. Then the other slot
// gets a new checkpoint, and becomes the newer one with its header, which is
// written last. A frame counts only behind the header for which it was written, not
// behind the slot's next one. Nothing is renamed, truncated or allocated: a file
// system that is full, or a device that has no file system, does as well.
//
// All of it is text, for a reader at night: `less state.0`.
//
// The package does not know what a frame means, and it never decides when to sync.
package journal
