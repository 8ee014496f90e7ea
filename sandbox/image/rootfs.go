// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// rootfs is the folder that becomes an image's layer. Only regular files,
// folders and symbolic links are kept; owners become root, times the epoch.
type rootfs struct {
	dir  string
	root *os.Root // no link in a package can lead a write out of dir
}

// merged are the folders that are links into /usr in every current Debian.
var merged = []string{"bin", "sbin", "lib", "lib64"}

func newRootfs(dir string) (*rootfs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r := &rootfs{dir: dir, root: root}
	for _, d := range []string{"etc", "tmp", "run", "var"} {
		if err := root.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// mergeUsr makes /bin, /sbin, /lib and /lib64 links into /usr.
func (r *rootfs) mergeUsr() error {
	for _, d := range merged {
		if err := r.root.MkdirAll("usr/"+d, 0o755); err != nil {
			return err
		}
		if err := r.root.Symlink("usr/"+d, d); err != nil {
			return err
		}
	}
	return nil
}

// file writes a file, with the folders above it.
func (r *rootfs) file(name string, mode fs.FileMode, content io.Reader) error {
	if err := r.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := r.root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = r.root.Chmod(name, mode) // the process's umask does not count
	}
	return err
}

// text writes a small configuration file.
func (r *rootfs) text(name, content string) error {
	return r.file(name, 0o644, strings.NewReader(content))
}

// users writes /etc/passwd and /etc/group with root and the service's user,
// and where names are looked up.
func (r *rootfs) users(name, home string) error {
	return errors.Join(
		r.text("etc/passwd", fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\n%s:x:%d:%d::%s:/bin/sh\n", name, serviceUser, serviceUser, home)),
		r.text("etc/group", fmt.Sprintf("root:x:0:\n%s:x:%d:\n", name, serviceUser)),
		r.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
	)
}

// extract unpacks a tar stream; skip says which paths (without a leading
// slash) to leave out.
func (r *rootfs) extract(in io.Reader, skip func(name string) bool) error {
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := intoUsr(path.Clean(strings.TrimPrefix(h.Name, "./")))
		if name == "." || skip(name) {
			continue
		}
		if err := r.entry(name, h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func (r *rootfs) entry(name string, h *tar.Header, content io.Reader) error {
	mode := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return r.root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		return r.file(name, mode, content)
	case tar.TypeSymlink:
		if err := r.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := r.root.Symlink(h.Linkname, name); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeLink:
		return r.root.Link(intoUsr(path.Clean(strings.TrimPrefix(h.Linkname, "./"))), name)
	default:
		return fmt.Errorf("entry of kind %q: only files, folders and links are expected", h.Typeflag)
	}
}

// intoUsr follows the merged folders, so that no package replaces a link by a folder.
func intoUsr(name string) string {
	first, _, _ := strings.Cut(name, "/")
	for _, d := range merged {
		if first == d {
			return "usr/" + name
		}
	}
	return name
}

// writeTar writes everything below the root in a fixed order; own gives the
// owner of a path and everything below it.
func (r *rootfs) writeTar(dest string, own map[string]int) error {
	if err := r.root.Close(); err != nil {
		return err
	}
	f, err := os.Create(dest)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = filepath.WalkDir(r.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == r.dir {
			return err
		}
		name, err := filepath.Rel(r.dir, p)
		if err != nil {
			return err
		}
		return addEntry(w, p, name, owner(name, own), d)
	})
	return errors.Join(err, w.Close(), f.Close())
}

func owner(name string, own map[string]int) int {
	for p := name; p != "."; p = path.Dir(p) {
		if id, ok := own[p]; ok {
			return id
		}
	}
	return 0
}

func addEntry(w *tar.Writer, p, name string, id int, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, ModTime: epoch, Uid: id, Gid: id, Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX}
	switch {
	case d.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if name == "tmp" {
			h.Mode = 0o1777
		}
		return w.WriteHeader(h)
	case info.Mode()&fs.ModeSymlink != 0:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = os.Readlink(p); err != nil {
			return err
		}
		return w.WriteHeader(h)
	case info.Mode().IsRegular():
		h.Size = info.Size()
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(w, f)
		return err
	default:
		return nil // sockets and devices that a build step left are no part of an image
	}
}
