package webclient

// Config says what of the web client is served.
type Config struct {
	Widget bool `env:"WIDGET" desc:"true serves the chat widget, /widget.js, for pages to embed"`
	Demo   bool `env:"DEMO" desc:"true serves a demo page at /, whose two people are guests who write to each other; it lets guests in as GUEST_CONTACTS=guests does (make run sets it where nothing says otherwise)"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config { return Config{Widget: true} }
