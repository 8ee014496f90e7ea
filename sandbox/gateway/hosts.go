// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// HostsFile is where the machine looks names up before it asks a DNS server.
const HostsFile = "/etc/hosts"

func marks(cluster string) (begin, end string) {
	return "# BEGIN kaphera sandbox " + cluster + " (kept by the sandbox; `sandbox down " + cluster + "` removes it)",
		"# END kaphera sandbox " + cluster
}

// SyncHosts makes the cluster's block in a hosts file name exactly hosts.
func SyncHosts(file, cluster, address string, hosts []string) error {
	return editHosts(file, func(text string) string { return replaceBlock(text, cluster, address, hosts) })
}

// RemoveHosts removes the cluster's block from a hosts file.
func RemoveHosts(file, cluster string) error {
	return editHosts(file, func(text string) string { return replaceBlock(text, cluster, "", nil) })
}

// replaceBlock leaves every line outside the cluster's block as it is. A block
// whose end is missing (a crash, a person's edit) ends at the first line that
// is not one of its entries.
func replaceBlock(text, cluster, address string, hosts []string) string {
	begin, end := marks(cluster)
	var out strings.Builder
	var inside bool
	var entry string
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(line)
		if bare == begin {
			inside, entry = true, ""
			continue
		}
		if inside {
			fields := strings.Fields(bare)
			if bare == end {
				inside = false
				continue
			}
			if len(fields) == 2 && (entry == "" || entry == fields[0]) && !strings.HasPrefix(bare, "#") {
				entry = fields[0]
				continue
			}
			inside = false
		}
		out.WriteString(line)
	}
	if len(hosts) == 0 {
		return out.String()
	}
	if s := out.String(); s != "" && !strings.HasSuffix(s, "\n") {
		out.WriteString("\n")
	}
	fmt.Fprintln(&out, begin)
	for _, host := range slices.Compact(slices.Sorted(slices.Values(hosts))) {
		fmt.Fprintln(&out, address, host)
	}
	fmt.Fprintln(&out, end)
	return out.String()
}

func editHosts(file string, edit func(string) string) error {
	// Other clusters' agents edit the same file.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), ".kaphera-sandbox-hosts.lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", file, err)
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := edit(string(old))
	if text == string(old) {
		return nil
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	tmp := file + ".kaphera"
	if err := os.WriteFile(tmp, []byte(text), mode); err != nil {
		return fmt.Errorf("edit %s: %w", file, err)
	}
	if err := os.Rename(tmp, file); err == nil {
		return nil
	}
	// In a container the file is a mount of its own and cannot be replaced.
	if err := errors.Join(os.WriteFile(file, []byte(text), mode), os.Remove(tmp)); err != nil {
		return fmt.Errorf("edit %s: %w", file, err)
	}
	return nil
}
