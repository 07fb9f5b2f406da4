"""The endpoint's pages for people: ask about a picture in the browser, and read how programs ask."""
