// Package devmapper speaks the kernel's device-mapper language: requests,
// tables, messages and status, with no library and no process in between.
//
// Every request passes through one door, [Kernel], so that is where it can be
// simulated, traced and broken. What this package is told by the kernel it
// passes on with the kernel's own errno; what the kernel leaves open, such as
// whether a message that answered "ok" was committed, it finds out before it
// answers.
//
// It does not know names of volumes, policies or state files, and it never
// decides what to do about an error.
package devmapper
