// SPDX-License-Identifier: Apache-2.0

package pgtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"testing"
)

// Rewrite returns the URL of a database as seen through a proxy that changes the text of every statement on its way to the server: a test build of
// the queries without a build of its own.
func Rewrite(tb testing.TB, database string, change func(sql string) string) string {
	tb.Helper()
	u, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	server := u.Host
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = client.Close() }()
				upstream, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", server)
				if err != nil {
					return
				}
				defer func() { _ = upstream.Close() }()
				go func() {
					_, _ = io.Copy(client, upstream)
					_ = client.Close()
				}()
				_ = rewrite(upstream, client, change)
			}()
		}
	}()
	u.Host = l.Addr().String()
	return u.String()
}

// rewrite passes on what a client sends: a start-up message without a type, and then messages of one byte for the type and four for the length,
// itself included (PostgreSQL documentation, "Message Formats").
func rewrite(server io.Writer, client io.Reader, change func(string) string) error {
	for first := true; ; first = false {
		head := make([]byte, 5)
		if first {
			head = head[:4]
		}
		if _, err := io.ReadFull(client, head); err != nil {
			return err
		}
		size := head[len(head)-4:]
		body := make([]byte, binary.BigEndian.Uint32(size)-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return err
		}
		switch {
		case first:
		case head[0] == 'Q':
			body = append([]byte(change(string(bytes.TrimSuffix(body, []byte{0})))), 0)
		case head[0] == 'P':
			parts := bytes.SplitN(body, []byte{0}, 3) // name, statement, types of parameters
			body = bytes.Join([][]byte{parts[0], []byte(change(string(parts[1]))), parts[2]}, []byte{0})
		}
		binary.BigEndian.PutUint32(size, uint32(len(body)+4)) // #nosec G115 -- shorter than what came
		if _, err := server.Write(slices.Concat(head, body)); err != nil {
			return err
		}
	}
}
