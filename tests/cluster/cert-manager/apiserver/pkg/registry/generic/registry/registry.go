// Package registry has the one constant that cert-manager takes from it, and none of the API server behind that.
package registry

// OptimisticLockErrorMsg is in the API server's answer to a write that came too late.
const OptimisticLockErrorMsg = "the object has been modified; please apply your changes to the latest version and try again"
