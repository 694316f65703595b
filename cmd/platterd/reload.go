package main

// reload reads again what may change while the gateway runs.
func (g *gateway) reload() {
}
