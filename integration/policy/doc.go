// Package policy asks the real oslo.policy and the real Glance what package
// api/policy is asked: thousands of generated rules about users and images,
// and every rule of Glance. They must answer the same.
package policy
