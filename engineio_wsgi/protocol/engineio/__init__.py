"""Engine.IO packets and payloads: revision 4, revisions 1 to 3, and JSONP."""
