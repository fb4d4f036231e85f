// Package deviceset keeps named thin devices in a pool.
//
// # What is promised
//
// A DeviceSet's verbs survive a crash at any instant, of the process or of the
// machine: each has either happened or not, and may simply be called again.
//
//   - Nothing acknowledged is lost: a verb that returned nil has happened, also
//     after a power cut, and also if the root directory is lost as long as the
//     pool's disks are not (Adopt).
//   - Nothing is leaked: after the next start the thin devices of the pool are
//     those that the DeviceSet knows by name, those whose deletion is pending,
//     those in quarantine, and the label.
//   - Nothing live is deleted, formatted or repaired on suspicion. Where state and
//     pool disagree, it says so, serves what both agree on, and changes nothing
//     until it is told to.
//   - A thin device is active once, at most, and no device stays suspended.
//   - An error tells whether asking again helps: ErrUnavailable says yes.
//
// It holds on disks that keep what they were told to flush and do not damage
// sectors that they were not told to write.
//
// # What is not promised
//
// Two machines that write to one disk at once are not noticed. What a device holds
// is its owner's: after a power cut it has what its owner had flushed. A pool whose
// metadata the kernel refuses is not repaired. Whoever restores a copy of a pool's
// metadata without its data gets devices with each other's content; the fences
// refuse it where it shows.
//
// # How
//
// What the kernel keeps is asked of the kernel, above all which thin devices there
// are. What it does not keep stands in a journal (package journal): names, sizes,
// lineage, and each operation before the kernel hears of it. The journal has two
// copies: two files under the root, which decide, and the label, which is thin
// device 0 of the pool and costs no flush, since the commit of the operation itself
// makes it durable. docs/state.md tells all of it.
//
// # What it does not know
//
// Kubernetes, gRPC, and who is to be told: it logs nothing.
package deviceset
