// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
)

// RuntimeError turns a failed call to a runtime into an exit: terminal when the runtime refuses what it was told, else waiting.
// who is what was called, such as "the wallet".
func RuntimeError(condition, who string, err error) error {
	if _, refused := runtimeclient.Refused(err); refused {
		return outcome.Terminal(condition, v1alpha1.ReasonRefused, "%s refused: %v", who, err)
	}
	if runtimeclient.Answered(err) {
		return outcome.Waiting(RetryLate, condition, v1alpha1.ReasonFailed, "%s failed: %v", who, err)
	}
	return outcome.Waiting(RetryLate, condition, v1alpha1.ReasonRuntimeUnreachable, "%s does not answer: %v", who, err)
}
