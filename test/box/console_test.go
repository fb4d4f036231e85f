package main

import "testing"

func TestConsoleTellsTrouble(t *testing.T) {
	for said, want := range map[string]string{
		"[    1.0] device-mapper: thin: 254:1: unable to service pool target messages": "",
		"[    1.5] BUG: kernel NULL pointer dereference, address: 0\r\nmore":           "BUG: kernel NULL pointer dereference, address: 0",
		"first\n[   12.5] WARNING: CPU: 0 PID: 9 at drivers/md/dm.c:555 x+0x0/0x1\n":   "WARNING: CPU: 0 PID: 9 at drivers/md/dm.c:555 x+0x0/0x1",
		"Kernel panic - not syncing: sysrq triggered crash":                            "Kernel panic - not syncing: sysrq triggered crash",
	} {
		if got := consoleOf(t, said).trouble(); got != want {
			t.Errorf("%q: trouble %q", said, got)
		}
	}
}

func TestConsoleLastWords(t *testing.T) {
	for said, want := range map[string]string{
		"noise\r\nbox: mount 9p on /: no such device\r\n[ 1.0] reboot: Power down\n": "mount 9p on /: no such device",
		"[ 1.0] Kernel panic - not syncing: no init\n[ 1.1] more\n":                  "the kernel died: Kernel panic - not syncing: no init",
		"qemu-system-x86_64: cannot set up guest memory\n\n":                         "the kernel ended early: qemu-system-x86_64: cannot set up guest memory",
		"": "the kernel ended early: ",
	} {
		if got := consoleOf(t, said).lastWords(); got != want {
			t.Errorf("%q: last words %q", said, got)
		}
	}
}

func consoleOf(t *testing.T, said string) *console {
	t.Helper()
	c, err := newConsole(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.path(), []byte(said))
	return c
}
