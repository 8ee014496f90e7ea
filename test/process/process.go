// SPDX-License-Identifier: Apache-2.0

// Package process starts the servers that tests run against.
package process

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a program that dies by the signal together with this one, however that ends. done is closed when it has ended; it is waited for, so that
// nobody else may. On an error nothing runs.
func Start(cmd *exec.Cmd, death syscall.Signal) (done <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = death
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the signal comes when the thread that started it ends
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	return ended, <-started
}
