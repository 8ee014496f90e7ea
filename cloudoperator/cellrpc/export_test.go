// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

// Send is send.
var Send = send
