// SPDX-License-Identifier: Apache-2.0

// Package examples holds what the demo needs beside the product: sample documents (pcf) and a small company backend (pcf-backend).
// Nothing of the product imports it but the CLI's demo command.
package examples
