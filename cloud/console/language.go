// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"net/http"

	xlanguage "golang.org/x/text/language"
)

// lang is the language of a page: "en" or "de".
type lang string

var matcher = xlanguage.NewMatcher([]xlanguage.Tag{xlanguage.English, xlanguage.German})

func language(r *http.Request) lang {
	tags, _, err := xlanguage.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil {
		return "en"
	}
	if _, i, _ := matcher.Match(tags...); i == 1 {
		return "de"
	}
	return "en"
}

// t translates an English text; what has no translation stays English.
func (l lang) t(text string) string {
	if de, ok := german[text]; ok && l == "de" {
		return de
	}
	return text
}

var german = map[string]string{ //nolint:gosec // words, no credentials
	"Status": "Status", "Participant": "Teilnehmer", "Participants": "Teilnehmer", "Organization": "Organisation", "Cell": "Zelle",
	"Runs in": "Läuft in", "Operated by": "Betrieben von", "Connector": "Konnektor", "Credentials": "Nachweise", "Credential": "Nachweis", "party": "Partei", "Where you are": "Wo Sie sind", "Contracts": "Verträge",
	"Last heard": "Zuletzt gehört", "Log out": "Abmelden", "Log in": "Anmelden", "Skip to content": "Zum Inhalt springen",
	"Healthy": "In Ordnung", "Pending": "Unterwegs", "Warning": "Hinweis", "Failed": "Gestört", "Unknown": "Unbekannt",
	"There is no participant yet.": "Es gibt noch keinen Teilnehmer.",
	"Every participant, where it runs, and how its connector, credentials and contracts are.": "Alle Teilnehmer: wo sie laufen und wie es um Konnektor, Nachweise und Verträge steht.",
	"Identity": "Identität", "Business partner number": "Geschäftspartnernummer", "Profile": "Profil", "Managed by": "Verwaltet von",
	"Onboarding": "Aufnahme", "Issued by": "Ausgestellt von", "State": "Zustand", "Valid until": "Gültig bis", "Type": "Art",
	"Negotiations": "Verhandlungen", "Negotiation": "Verhandlung", "Start a negotiation": "Verhandlung beginnen",
	"No negotiation yet.": "Noch keine Verhandlung.", "Counterparty": "Gegenseite", "Asset": "Datenangebot", "Began": "Begonnen", "Role": "Rolle",
	"consumer": "Abnehmer", "provider": "Anbieter", "active": "aktiv", "failed": "gescheitert", "under way": "laufend",
	"Show the catalog": "Katalog zeigen", "Negotiate": "Verhandeln", "Catalog of": "Katalog von", "Choose a partner": "Partner wählen",
	"The partner offers nothing that you may see.": "Der Partner bietet nichts an, das Sie sehen dürfen.",
	"What the contract demands":                    "Was der Vertrag verlangt", "Use case": "Anwendungsfall", "Offer": "Angebot", "Agreement": "Vereinbarung",
	"Steps": "Schritte", "What was checked": "Was geprüft wurde", "Nothing has been checked yet.": "Noch wurde nichts geprüft.",
	"seen": "gesehen", "nothing": "nichts", "Demanded": "Verlangt", "What to do": "Was zu tun ist", "granted": "erfüllt", "denied": "abgelehnt",
	"Details for developers": "Einzelheiten für Entwickler", "Why it ended": "Warum sie endete", "waits for": "wartet auf",
	"catalog": "Katalog", "negotiation": "Verhandlung", "transfer": "Übertragung", "access": "Zugriff",
	"Requested": "Angefragt", "Offered": "Angeboten", "Accepted": "Angenommen", "Agreed": "Vereinbart", "Verified": "Geprüft", "Concluded": "Abgeschlossen", "Ended without agreement": "Ohne Vereinbarung beendet",
	"The DID document answers": "Das DID-Dokument ist erreichbar", "The credentials are held": "Die Nachweise liegen vor", "A contact is named": "Ein Ansprechpartner ist genannt",
	"participant or DID": "Teilnehmer oder DID", "Valid": "Gültig", "Expiring": "Läuft ab", "Expired": "Abgelaufen", "Revoked": "Widerrufen", "Suspended": "Ausgesetzt", "Rejected": "Abgelehnt", "WrongIssuer": "Falscher Aussteller",
	"Back to the status": "Zurück zum Status", "This did not work": "Das hat nicht geklappt", "no such page": "Diese Seite gibt es nicht.",
	"The identity provider does not answer.": "Der Anmeldedienst antwortet nicht.", "Try again in a moment.": "Bitte gleich noch einmal versuchen.",
	"Your session has ended.": "Ihre Sitzung ist zu Ende.", "Log in and repeat what you did.": "Melden Sie sich an und wiederholen Sie den letzten Schritt.",
	"Something went wrong on our side.":                            "Bei uns ist etwas schiefgegangen.",
	"This log-in took too long or was started in another browser.": "Diese Anmeldung hat zu lange gedauert oder wurde in einem anderen Browser begonnen.",
	"This log-in does not belong to the one you started.":          "Diese Anmeldung gehört nicht zu der, die Sie begonnen haben.",
	"The identity provider refused to log you in.":                 "Der Anmeldedienst hat die Anmeldung abgelehnt.",
	"The identity provider's answer is not for this log-in.":       "Die Antwort des Anmeldedienstes gehört nicht zu dieser Anmeldung.",
	"Start again: log in.":                                         "Beginnen Sie von vorn: anmelden.",
}
