// Empty on purpose: with a file of assembly in the package, the compiler accepts functions without
// a body, which library.go needs.
